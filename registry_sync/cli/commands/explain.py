"""The command explain."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from gateway.contract import CatalogueVersion
from registry_sync.cli.arguments import AsJson, ModelArgument, of_selector
from registry_sync.cli.client import call
from registry_sync.cli.commands.history import print_entries
from registry_sync.cli.commands.status import fetch_line
from registry_sync.cli.output import ago, failed, print_answer, print_table, short, text_console
from registry_sync.cli.tables import Column, Row
from registry_sync.domain import ExplainAnswer, SelectorState

_COLUMNS = (Column("version"), Column("state"), Column("stamped", 1), Column("digest", 2))


def explain(
    model: ModelArgument,
    selector: Annotated[
        str | None, typer.Argument(help="A version or an alias; every alias by default.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Explain which version a selector means on this node, and what happens next."""
    answer = call("GET", "/explain", ExplainAnswer, params=of_selector(model, selector))
    print_answer(answer, _print_explanation, as_json=as_json)


def _print_explanation(answer: ExplainAnswer) -> None:
    out = text_console()
    troubles = {
        "registry": answer.source_error,
        "gateway": answer.gateway_error,
        "ledger": answer.ledger_error,
    }
    for name, trouble in troubles.items():
        if trouble:
            out.print(Text(f"{name}: {trouble}", style="red"))
    if answer.frozen:
        out.print(Text(f"frozen {ago(answer.frozen.at)} by {answer.frozen.asked_by}", "yellow"))
    if not answer.selectors:
        out.print(f"{answer.model} has no alias; its versions are called by number.")
    for one in answer.selectors:
        _print_selector(out, answer.model, one)
    for fetch in answer.fetches:
        out.print(fetch_line(fetch))
    if answer.versions:
        out.print("")
        print_table(_COLUMNS, (_version_row(answer.model, one) for one in answer.versions))
    if answer.attempts:
        out.print("")
        print_entries(answer.attempts)


def _print_selector(out: Console, model: str, one: SelectorState) -> None:
    name = f"{model}{one.selector}" if one.selector.startswith("@") else f"{model} {one.selector}"
    means = f"means version {one.version} here" if one.version else "means nothing here"
    since = f", since {ago(one.since)}" if one.since else ""
    by = f", by {one.asked_by}" if one.asked_by else ""
    before = f", previously {one.previous}" if one.previous else ""
    as_aspired = one.version is not None and one.target in (None, one.version)
    out.print(Text(f"{name} {means}{since}{by}{before}", "green" if as_aspired else "yellow"))
    if one.aspired is not None:
        out.print(f"  the registry points it at version {one.aspired}")
    out.print(Text(f"  {one.why}: {one.reason}"))
    if one.signature_change and one.signature_change not in one.reason:
        out.print(Text(f"  {one.signature_change}", "yellow"))
    if one.doing:
        out.print(f"  under way: {', '.join(one.doing)}")
    if one.failure:
        out.print(Text(f"  {failed(one.failures, one.failure, one.retry_at)}", "yellow"))


def _version_row(model: str, one: CatalogueVersion) -> Row:
    cells = [
        Text(f"{model}/{one.version}"),
        Text(one.state),
        Text("yes" if one.stamped else "no"),
        Text(short(one.digest)),
    ]
    return Row(cells, [Text(one.reason)] if one.reason else [])
