"""The state of the node: its aliases, registry, fetches, store and failures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.text import Text

from gateway.contract import Residency
from registry_sync.cli.arguments import AsJson, of_model
from registry_sync.cli.client import call
from registry_sync.cli.output import (
    ago,
    clear_screen,
    failed,
    print_answer,
    print_note,
    print_table,
    print_text,
    short,
)
from registry_sync.cli.tables import Column, Row
from registry_sync.domain import AliasState, FetchState, State, StoreState, WebhookState

_WATCH_EVERY_S = 2.0
_COLUMNS = (Column("alias"), Column("version"), Column("since", 1), Column("digest", 2))
Aliases = Sequence[tuple[str, AliasState]]


def status(
    model: Annotated[
        str | None, typer.Argument(help="Show one registered model; by default all.")
    ] = None,
    *,
    problems: Annotated[
        bool, typer.Option("--problems", help="Show only aliases that differ from the registry.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every 2 s, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the active and the aspired version of every alias, and why they differ."""
    query = of_model(model) if model is not None else {}
    while True:
        with _going_on(watch):
            state = call("GET", "/state", State, params=query)
            if watch and not as_json:
                clear_screen()
            print_answer(state, lambda found: _print_state(found, model, problems), as_json=as_json)
        if not watch:
            return
        time.sleep(_WATCH_EVERY_S)  # the pace of --watch; Ctrl-C ends it


def _going_on(watch: bool) -> AbstractContextManager[object]:
    """Return a context in which a call that fails, and has said so, does not end a watch."""
    return suppress(typer.Exit) if watch else nullcontext()


def _print_state(state: State, model: str | None, only_problems: bool) -> None:
    aliases = [(one.name, alias) for one in state.models for alias in one.aliases]
    shown = [one for one in aliases if not only_problems or _differs(one[1])]
    for line in _summary(state, aliases):
        print_text(line)
    for problem in state.problems:
        print_text(Text(problem, style="yellow"))
    if shown:
        print_text(Text())
        print_aliases(shown)
    elif model is not None and not state.models:
        print_note(f"Neither the registry nor this node has a model {model!r}.")
    elif aliases:
        print_note("Every alias is at the registry's version.")
    for fetch in state.fetches:
        print_text(fetch_line(fetch))
    for work in state.work:
        if work.reason:
            what = " ".join([work.step, *map(_part, work.subject)])
            print_text(Text(f"{what}: {failed(work.failures, work.reason, work.retry_at)}"))


def _summary(state: State, aliases: Aliases) -> Iterator[Text]:
    """Yield the lines above the table: what there is, how full the node is, and what is wrong."""
    yield Text.assemble("node ", (state.node_id, "bold"), f", following {state.tracking_uri}")
    yield _registry_line(state)
    yield _count_line(len(state.models), aliases)
    yield from _residency_lines(state.residency)
    yield _store_line(state.store)
    if state.frozen:
        since = f"frozen {ago(state.frozen.at)} by {state.frozen.asked_by}"
        yield Text(
            f"{since}: no alias follows the registry until `registry-gateway unfreeze`", "yellow"
        )
    for name, trouble in (("gateway", state.gateway_error), ("ledger", state.ledger_error)):
        if trouble:
            yield Text(f"{name}: {trouble}", style="red")
    yield from map(_webhook_line, state.webhooks)


def _registry_line(state: State) -> Text:
    when = "never listed" if state.listed_at is None else f"listed {ago(state.listed_at)}"
    if state.source_error is None:
        return Text(f"registry: {when}")
    return Text(f"registry: {when}; {state.source_error}", style="red")


def _count_line(models: int, aliases: Aliases) -> Text:
    differ = sum(_differs(alias) for _, alias in aliases)
    held = sum(alias.held_at is not None for _, alias in aliases)
    line = f"{_several(models, 'model')}, {_several(len(aliases), 'alias')}"
    line += f", {held} held or pinned" if held else ""
    if aliases:
        line += f", {f'{differ} not' if differ else 'all'} at the registry's version"
    return Text(line, "yellow" if differ else "")


def _several(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def _part(one: str) -> str:
    """Return a part of a step's subject: a digest is shortened, a name is not."""
    return short(one) if one.startswith("sha256:") else one


def _differs(alias: AliasState) -> bool:
    return alias.active != alias.aspired


def _webhook_line(webhook: WebhookState) -> Text:
    line = f"webhook {webhook.name}: {webhook.accepted} deliveries accepted"
    line += f", the last {ago(webhook.accepted_at)}" if webhook.accepted_at else ""
    if webhook.refused_at:
        line += f"; {webhook.refused} refused, the last {ago(webhook.refused_at)}: "
        line += webhook.refusal or ""
    failing = (webhook.refused_at or 0.0) > (webhook.accepted_at or 0.0)
    return Text(line, style="yellow" if failing else "")


def _store_line(store: StoreState) -> Text:
    line = f"artifact store: {decimal(store.stored_bytes)}"
    if store.budget_bytes is not None:
        line += f" of {decimal(store.budget_bytes)}"
    if store.coming_bytes:
        line += f", {decimal(store.coming_bytes)} reserved for fetches"
    over = (store.budget_bytes or store.stored_bytes) < store.stored_bytes
    return Text(line, style="yellow" if over else "")


def _residency_lines(residency: Residency | None) -> Iterator[Text]:
    """Yield how full the resident set is, and what each limit has cost callers."""
    if residency is None:
        return
    size = f"{decimal(residency.memory_bytes)} of {decimal(residency.memory_limit_bytes)}"
    yield Text(f"workers: {residency.workers} of {residency.worker_limit}, {size}")
    for cost in residency.eviction_costs:
        yield Text(
            f"within ten minutes {_several(cost.requests, 'request')} waited up to "
            f"{cost.longest_wait_s:.2f} s for models that had been evicted: raise {cost.setting} "
            "of the gateway",
            style="yellow",
        )


def fetch_line(fetch: FetchState) -> Text:
    """Return the progress of a fetch."""
    what = "verifying" if fetch.comparing else "fetching"
    line = f"{what} {fetch.model}/{fetch.version}: {decimal(fetch.arrived_bytes)}"
    if fetch.total_bytes:
        share = fetch.arrived_bytes / fetch.total_bytes
        line += f" of {decimal(fetch.total_bytes)} ({share:.0%})"
    return Text(f"{line}, begun {ago(fetch.started_at)}")


def print_aliases(aliases: Iterable[tuple[str, AliasState]]) -> None:
    """Print a table of aliases, each with the name of its model."""
    print_table(_COLUMNS, (_alias_row(model, alias) for model, alias in aliases))


def _alias_row(model: str, alias: AliasState) -> Row:
    differs = _differs(alias)
    style = "yellow" if differs else "green"
    cells = [
        Text(f"{model}@{alias.alias}"),
        Text(_version(alias), style),
        Text(ago(alias.since) if alias.since else "-"),
        Text(short(alias.digest)),
    ]
    why = alias.reason or alias.signature_change or ("under way" if differs else "")
    return Row(cells, [Text(why, "yellow" if differs else "")] if why else [])


def _version(alias: AliasState) -> str:
    """Return the active version, then the aspired one if it is another, and what holds it."""
    text = str(alias.active or "-")
    if _differs(alias):
        text += f" → {alias.aspired or '-'}"
    if alias.held_at is None:
        return text
    return f"{text} ({'pinned' if alias.pinned else 'held'})"
