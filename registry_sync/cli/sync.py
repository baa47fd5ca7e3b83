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
from registry_sync.domain import Quarantines, ReleaseAnswer, RetryAnswer, SyncAnswer

VersionArgument = Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="Such as churn/3.")]

# --- sync -----------------------------------------------------------------------------------------


def sync(model: ModelArgument, *, as_json: AsJson = False) -> None:
    """List the registry now, try again what waits, and see where the model's aliases get."""
    answer = ask("POST", "/sync", SyncAnswer, json=of_model(model))
    tell(answer, _say_sync, as_json=as_json)
    end(answer.outcome)


def _say_sync(answer: SyncAnswer) -> None:
    if answer.reason:
        say_error(f"the registry could not be listed: {answer.reason}")
    tables().print(alias_table((answer.model, alias) for alias in answer.aliases))


# --- rejected versions ----------------------------------------------------------------------------


def retry(reference: VersionArgument, *, as_json: AsJson = False) -> None:
    """Try a rejected version once more; one that fails again is rejected again."""
    answer = ask("POST", "/retry", RetryAnswer, json=of_version(reference))
    tell(answer, _say_retried, as_json=as_json)
    end(answer.outcome)


def _say_retried(answer: RetryAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    aliases = ", ".join(f"@{one}" for one in answer.aliases)
    if answer.outcome == "active":
        say(f"{name} is no longer rejected: {aliases} means it now.")
    elif answer.outcome == "released":
        say(f"{name} is no longer rejected; {answer.reason}.")
    elif answer.outcome == "pending":
        say_error(f"{name} is no longer rejected, and not active yet: {answer.reason}")
    else:
        say_error(f"{name} is not active: {answer.reason}")


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


def accept_quarantined(reference: VersionArgument, *, as_json: AsJson = False) -> None:
    """Accept bytes that were altered under their number, exactly as they were found."""
    answer = ask("POST", "/quarantine/accept", ReleaseAnswer, json=of_version(reference))
    tell(answer, _say_accepted, as_json=as_json)
    end(answer.outcome)


def _say_accepted(answer: ReleaseAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    if answer.outcome == "accepted":
        say(f"The bytes of {name} are accepted as they were found, and here.")
    elif answer.outcome == "pending":
        say_error(f"The bytes of {name} are not accepted yet: {answer.reason}")
    else:
        say_error(f"{name} stays quarantined: {answer.reason}")


def release_quarantine(reference: VersionArgument, *, as_json: AsJson = False) -> None:
    """Fetch and check a quarantined version once more; wrong bytes are quarantined again."""
    answer = ask("POST", "/quarantine/release", ReleaseAnswer, json=of_version(reference))
    tell(answer, _say_release, as_json=as_json)
    end(answer.outcome)


def _say_release(answer: ReleaseAnswer) -> None:
    name = f"{answer.model}/{answer.version}"
    if answer.outcome == "accepted":
        say(f"{name} is no longer quarantined: its bytes are right, and here.")
    elif answer.outcome == "released":
        say(f"{name} is no longer quarantined; {answer.reason}.")
    elif answer.outcome == "pending":
        say_error(f"{name} is no longer quarantined, and not here yet: {answer.reason}")
    else:
        say_error(f"{name} is quarantined again: {answer.reason}")
