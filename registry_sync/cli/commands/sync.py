"""Further attempts that operators start: listings, rejected versions, quarantined bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer
from rich.text import Text

from registry_sync.cli.arguments import AsJson, ModelArgument, of_model, of_version
from registry_sync.cli.client import call
from registry_sync.cli.commands.status import print_aliases
from registry_sync.cli.output import (
    ago,
    is_done,
    print_answer,
    print_done,
    print_error,
    print_note,
    print_table,
    short,
)
from registry_sync.cli.tables import Column, Row
from registry_sync.cli.waiting import Wait, conclude, of_acceptance, of_bytes, of_retry, of_sync
from registry_sync.domain import (
    AliasState,
    Outcome,
    QuarantineAnswer,
    Quarantines,
    QuarantineState,
    RetryAnswer,
    SelectorState,
    SyncAnswer,
)

_COLUMNS = (
    Column("version"),
    Column("incident"),
    Column("since", 1),
    Column("expected", 3),
    Column("found", 2),
)
VersionArgument = Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="Such as churn/3.")]

_RETRIED: Mapping[Outcome, str] = {
    "active": "{name} is no longer rejected: {aliases} means it now.",
    "ended": "{name} is no longer rejected; {reason}.",
    "pending": "{name} is no longer rejected, and not active yet: {reason}",
    "refused": "{name} is not active: {reason}",
}
_ACCEPTED: Mapping[Outcome, str] = {
    "accepted": "The altered bytes of {name} are accepted, and on this node.",
    "pending": "The altered bytes of {name} are not accepted yet: {reason}",
    "refused": "{name} stays quarantined: {reason}",
}
_RETRIED_QUARANTINE: Mapping[Outcome, str] = {
    "accepted": "{name} is no longer quarantined: its bytes are verified, and on this node.",
    "ended": "{name} is no longer quarantined; {reason}.",
    "pending": "{name} is no longer quarantined, and not on this node yet: {reason}",
    "refused": "{name} is quarantined again: {reason}",
}


def _printer(texts: Mapping[Outcome, str]) -> Callable[[RetryAnswer | QuarantineAnswer], None]:
    """Return a printer of the outcome of a decision about a version."""

    def print_outcome(answer: RetryAnswer | QuarantineAnswer) -> None:
        aliases = [one.selector for one in answer.explained if one.aspired == answer.version]
        text = texts[answer.outcome].format(
            name=f"{answer.model}/{answer.version}",
            aliases=", ".join(aliases),
            reason=answer.reason,
        )
        (print_done if is_done(answer.outcome) else print_error)(text)

    return print_outcome


# --- sync -----------------------------------------------------------------------------------------


def sync(model: ModelArgument, *, wait: Wait = True, as_json: AsJson = False) -> None:
    """List the registry now, retry every step of a model, and show its aliases."""
    answer = call("POST", "/sync", SyncAnswer, json=of_model(model))
    conclude(answer, of_sync, None, _print_sync, wait=wait, as_json=as_json)


def _print_sync(answer: SyncAnswer) -> None:
    if answer.reason:
        print_error(f"the registry could not be listed: {answer.reason}")
    print_aliases((answer.model, _state(one)) for one in answer.explained)


def _state(one: SelectorState) -> AliasState:
    """Return an alias as `status` shows it."""
    differs = one.why not in ("follows", "gone", "unknown", "under_way")
    return AliasState(
        alias=one.selector.removeprefix("@"),
        aspired=one.aspired,
        active=one.version,
        digest=one.digest,
        since=one.since,
        held_at=one.hold.version if one.hold else None,
        pinned=one.hold is not None and one.hold.pinned,
        reason=one.reason if differs else one.failure,
        signature_change=one.signature_change,
    )


# --- rejected versions ----------------------------------------------------------------------------


def retry(reference: VersionArgument, *, wait: Wait = True, as_json: AsJson = False) -> None:
    """Try a rejected version once more; one that fails again is rejected again."""
    answer = call("POST", "/retry", RetryAnswer, json=of_version(reference))
    conclude(answer, of_retry(answer), None, _printer(_RETRIED), wait=wait, as_json=as_json)


# --- quarantine -----------------------------------------------------------------------------------


def list_quarantine(*, as_json: AsJson = False) -> None:
    """Show which versions have wrong bytes, since when, and why."""
    print_answer(call("GET", "/quarantine", Quarantines), _print_quarantines, as_json=as_json)


def _print_quarantines(answer: Quarantines) -> None:
    if not answer.quarantines:
        print_note("No version is quarantined.")
        return
    print_table(_COLUMNS, map(_row, answer.quarantines))


def _row(one: QuarantineState) -> Row:
    cells = [
        Text(f"{one.model}/{one.version}"),
        Text(one.incident.replace("_", " ")),
        Text(ago(one.at)),
        Text(short(one.expected_digest)),
        Text(short(one.found_digest)),
    ]
    return Row(cells, [Text(f"{one.reason}; {one.way_out}")])


def accept_quarantined(
    reference: VersionArgument, *, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Accept bytes that were altered under their number, exactly as they were found."""
    answer = call("POST", "/quarantine/accept", QuarantineAnswer, json=of_version(reference))
    judge, selector = of_acceptance(answer), str(answer.version)
    conclude(answer, judge, selector, _printer(_ACCEPTED), wait=wait, as_json=as_json)


def retry_quarantine(
    reference: VersionArgument, *, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Fetch and verify a quarantined version once more; wrong bytes are quarantined again."""
    answer = call("POST", "/quarantine/retry", QuarantineAnswer, json=of_version(reference))
    printer, selector = _printer(_RETRIED_QUARANTINE), str(answer.version)
    conclude(answer, of_bytes, selector, printer, wait=wait, as_json=as_json)
