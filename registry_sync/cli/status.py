"""The state of the node: its aliases, registry, fetches, store and failures."""

from __future__ import annotations

from collections.abc import Iterable

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from registry_sync.cli.arguments import AsJson
from registry_sync.cli.client import call
from registry_sync.cli.output import ago, failed, print_answer, short, table_console
from registry_sync.domain import AliasState, FetchState, State, StoreState, WebhookState


def status(*, as_json: AsJson = False) -> None:
    """Show the active and the aspired version of every alias, and why they differ."""
    print_answer(call("GET", "/state", State), _print_state, as_json=as_json)


def _print_state(state: State) -> None:
    out = table_console()
    out.print(Text.assemble("node ", (state.node_id, "bold"), f", following {state.tracking_uri}"))
    out.print(Text(f"registry: {_listed(state)}"))
    if state.frozen:
        out.print(
            Text(
                f"frozen {ago(state.frozen.at)} by {state.frozen.asked_by}: no alias follows the "
                "registry until `registry-gateway unfreeze`",
                style="yellow",
            )
        )
    for name, trouble in (("gateway", state.gateway_error), ("ledger", state.ledger_error)):
        out.print(Text(f"{name}: {trouble or 'answers'}", style="red" if trouble else ""))
    for webhook in state.webhooks:
        out.print(_webhook_line(webhook))
    out.print(_store_line(state.store))
    for problem in state.problems:
        out.print(Text(problem, style="yellow"))
    out.print(alias_table((model.name, alias) for model in state.models for alias in model.aliases))
    for fetch in state.fetches:
        out.print(fetch_line(fetch))
    for work in state.work:
        if work.reason:
            what = " ".join([work.step, *map(short, work.subject)])
            out.print(Text(f"{what}: {failed(work.failures, work.reason, work.retry_at)}"))


def _listed(state: State) -> str:
    when = "never listed" if state.listed_at is None else f"listed {ago(state.listed_at)}"
    return f"{when}; {state.source_error}" if state.source_error else when


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


def fetch_line(fetch: FetchState) -> Text:
    """Return the progress of a fetch."""
    what = "verifying" if fetch.comparing else "fetching"
    line = f"{what} {fetch.model} {fetch.version}: {decimal(fetch.arrived_bytes)}"
    if fetch.total_bytes:
        share = fetch.arrived_bytes / fetch.total_bytes
        line += f" of {decimal(fetch.total_bytes)} ({share:.0%})"
    return Text(f"{line}, begun {ago(fetch.started_at)}")


def alias_table(aliases: Iterable[tuple[str, AliasState]]) -> Table:
    """Return a table of aliases, each with the name of its model."""
    table = Table("model", "alias", "active", "aspired", "since", "digest", "why", box=None)
    for model, alias in aliases:
        table.add_row(*_alias_row(model, alias))
    return table


def _alias_row(model: str, alias: AliasState) -> list[Text]:
    same = alias.active == alias.aspired
    held = f" ({'pinned' if alias.pinned else 'held'} at {alias.held_at})" if alias.held_at else ""
    why = alias.reason or alias.signature_change or ("" if same else "under way")
    return [
        Text(model),
        Text(f"@{alias.alias}"),
        Text(str(alias.active or "-"), style="green" if same else "yellow"),
        Text(f"{alias.aspired or '-'}{held}"),
        Text(ago(alias.since) if alias.since else "-"),
        Text(short(alias.digest)),
        Text(why, style="" if same else "yellow"),
    ]
