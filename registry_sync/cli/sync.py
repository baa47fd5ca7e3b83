"""What operators have looked at now: a model in the registry, and bytes that were wrong."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from registry_sync.cli.arguments import AsJson, ModelArgument, of_model, of_version
from registry_sync.cli.client import ask
from registry_sync.cli.output import ago, end, note, say, say_error, short, tables, tell
from registry_sync.cli.status import alias_table
from registry_sync.cli.waiting import Wait, of_acceptance, of_bytes, of_retry, of_sync, wait_for
from registry_sync.domain import (
    AliasState,
    Explained,
    QuarantineAnswer,
    Quarantines,
    RetryAnswer,
    SyncAnswer,
)

VersionArgument = Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="Such as churn/3.")]

# --- sync -----------------------------------------------------------------------------------------


def sync(model: ModelArgument, *, wait: Wait = True, as_json: AsJson = False) -> None:
    """List the registry now, try again what waits, and see where the model's aliases get."""
    answer = ask("POST", "/sync", SyncAnswer, json=of_model(model))
    if wait:
        answer = wait_for(answer, of_sync)
    tell(answer, _say_sync, as_json=as_json)
    end(answer.outcome, waited=wait)


def _say_sync(answer: SyncAnswer) -> None:
    if answer.reason:
        say_error(f"the registry could not be listed: {answer.reason}")
    tables().print(alias_table((answer.model, _state(one)) for one in answer.explained))


def _state(one: Explained) -> AliasState:
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
    answer = ask("POST", "/retry", RetryAnswer, json=of_version(reference))
    if wait:
        answer = wait_for(answer, of_retry(answer))
    tell(answer, _say_retried if wait else _say_decided, as_json=as_json)
    end(answer.outcome, waited=wait)


def _say_retried(answer: RetryAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    concerned = [one for one in answer.explained if one.aspired == answer.version]
    aliases = ", ".join(one.selector for one in concerned)
    if answer.outcome == "active":
        say(f"{name} is no longer rejected: {aliases} means it now.")
    elif answer.outcome == "ended":
        say(f"{name} is no longer rejected; {answer.reason}.")
    elif answer.outcome == "pending":
        say_error(f"{name} is no longer rejected, and not active yet: {answer.reason}")
    else:
        say_error(f"{name} is not active: {answer.reason}")


def _say_decided(answer: RetryAnswer | QuarantineAnswer) -> None:
    """Say what was decided and not waited for."""
    name = f"{answer.model}/{answer.version}"
    say(f"{name} is tried once more.", *(one.reason for one in answer.explained))


# --- quarantine -----------------------------------------------------------------------------------


def list_quarantine(*, as_json: AsJson = False) -> None:
    """Show which versions have wrong bytes, since when, and why."""
    tell(ask("GET", "/quarantine", Quarantines), _say_quarantines, as_json=as_json)


def _say_quarantines(answer: Quarantines) -> None:
    if not answer.quarantines:
        note("Nothing is quarantined.")
        return
    table = Table("model", "version", "since", "incident", "expected", "found", "why", box=None)
    for one in answer.quarantines:
        table.add_row(
            Text(one.model),
            str(one.version),
            ago(one.at),
            one.incident.replace("_", " "),
            short(one.expected_digest),
            short(one.found_digest),
            Text(f"{one.reason}; {one.way_out}"),
        )
    tables().print(table)


def accept_quarantined(
    reference: VersionArgument, *, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Accept bytes that were altered under their number, exactly as they were found."""
    answer = ask("POST", "/quarantine/accept", QuarantineAnswer, json=of_version(reference))
    if wait:
        answer = wait_for(answer, of_acceptance(answer), str(answer.version))
    tell(answer, _say_accepted if wait else _say_decided, as_json=as_json)
    end(answer.outcome, waited=wait)


def _say_accepted(answer: QuarantineAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    if answer.outcome == "accepted":
        say(f"The bytes of {name} are accepted as they were found, and here.")
    elif answer.outcome == "pending":
        say_error(f"The bytes of {name} are not accepted yet: {answer.reason}")
    else:
        say_error(f"{name} stays quarantined: {answer.reason}")


def retry_quarantine(
    reference: VersionArgument, *, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Fetch and check a quarantined version once more; wrong bytes are quarantined again."""
    answer = ask("POST", "/quarantine/retry", QuarantineAnswer, json=of_version(reference))
    if wait and answer.outcome == "pending":
        answer = wait_for(answer, of_bytes, str(answer.version))
    tell(answer, _say_retried_quarantine if wait else _say_decided, as_json=as_json)
    end(answer.outcome, waited=wait)


def _say_retried_quarantine(answer: QuarantineAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    if answer.outcome == "accepted":
        say(f"{name} is no longer quarantined: its bytes are right, and here.")
    elif answer.outcome == "ended":
        say(f"{name} is no longer quarantined; {answer.reason}.")
    elif answer.outcome == "pending":
        say_error(f"{name} is no longer quarantined, and not here yet: {answer.reason}")
    else:
        say_error(f"{name} is quarantined again: {answer.reason}")
