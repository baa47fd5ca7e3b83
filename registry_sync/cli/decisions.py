"""What operators decide against the registry: rollback, pin and freeze, and their ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from registry_sync.cli.arguments import AliasArgument, AsJson, of_alias
from registry_sync.cli.client import ask
from registry_sync.cli.output import ago, end, note, say, say_error, tell
from registry_sync.cli.waiting import Wait, of_bytes, of_hold, pauses, wait_for
from registry_sync.domain import (
    Decided,
    FreezeAnswer,
    PinAnswer,
    RollbackAnswer,
    UnpinAnswer,
)

# --- rollback -------------------------------------------------------------------------------------


def rollback(
    reference: AliasArgument,
    *,
    to: Annotated[
        int | None, typer.Option(min=1, help="The version; none: the one that was active before.")
    ] = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Put an alias back to what it pointed at before, and hold it there.

    It stays until the registry moves the alias to another version than now. Works with the
    registry down.
    """
    body = {**of_alias(reference), "version": to}
    answer = ask("POST", "/rollback", RollbackAnswer, json=body)
    if wait:
        answer = wait_for(answer, of_hold(answer), f"@{answer.alias}")
    tell(answer, _say_rollback if wait else _say_decided, as_json=as_json)
    _note_unrecorded(answer)
    end(answer.outcome, waited=wait)


def _say_rollback(answer: RollbackAnswer) -> None:
    name, (one,) = f"{answer.model}@{answer.alias}", answer.explained
    if answer.outcome == "active":
        say(
            f"{name} is back at version {answer.to_version} (was {answer.from_version}).",
            *_stays(answer, name),
        )
    elif answer.outcome == "refused":
        say_error(f"{name} is not back at version {answer.to_version}: {answer.reason}")
        say_error(f"It means version {one.version or '-'}; see `registry-gateway explain`.")
    else:
        say_error(
            f"{name} is to go back to version {answer.to_version}, and still serves version "
            f"{answer.from_version}: {answer.reason}. It goes on being tried; see "
            "`registry-gateway status`."
        )


def _stays(answer: RollbackAnswer, name: str) -> Iterator[str]:
    """Say what became of a pin, and until when the alias stays where it was put."""
    if answer.was_pinned:
        yield f"It was pinned, and is no longer: `registry-gateway pin {name} …` pins it."
    hold = answer.explained[0].hold
    if hold is None or hold.while_aspired is None:
        yield "It stays there until the registry moves the alias from where it is listed next."
    else:
        yield (
            "It stays there while the registry's alias points at version "
            f"{hold.while_aspired}; move the alias in the registry to follow it again."
        )


# --- pin, unpin -----------------------------------------------------------------------------------


def pin(
    reference: AliasArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version that it is to mean.")],
    *,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Keep an alias at a version, wherever the registry moves it, until `unpin`.

    A version that is not on this node is fetched and checked first.
    """
    body = {**of_alias(reference), "version": version}
    answer = ask("POST", "/pin", PinAnswer, json=body)
    for _ in pauses():
        if answer.pinned or not wait:
            break
        answer = wait_for(answer, of_bytes, str(version))
        if answer.outcome != "accepted":
            break
        answer = ask("POST", "/pin", PinAnswer, json=body)
    if answer.pinned and wait:
        answer = wait_for(answer, of_hold(answer), f"@{answer.alias}")
    elif not answer.pinned:
        outcome = "pending" if answer.explained[0].doing else "refused"
        answer = answer.model_copy(update={"outcome": outcome})
    tell(answer, _say_pin if wait or not answer.pinned else _say_decided, as_json=as_json)
    _note_unrecorded(answer)
    end(answer.outcome, waited=wait or not answer.pinned)


def _say_pin(answer: PinAnswer) -> None:
    name, (one,) = f"{answer.model}@{answer.alias}", answer.explained
    if not answer.pinned:
        where = f" at version {answer.from_version}" if answer.from_version else " as it was"
        reason = answer.reason or f"{one.reason}; pin it again when they are here"
        say_error(f"{name} is not pinned, and stays{where}: {reason}")
    elif answer.outcome == "refused":
        say_error(f"{name} is not at version {answer.to_version}: {answer.reason}")
        say_error(f"It means version {one.version or '-'}; see `registry-gateway explain`.")
    elif answer.outcome == "pending":
        say_error(
            f"{name} is pinned at version {answer.to_version}, and not there yet: "
            f"{answer.reason}. It goes on being tried; see `registry-gateway explain`."
        )
    else:
        was = f" (was {answer.from_version})" if answer.from_version else ""
        say(
            f"{name} is pinned at version {answer.to_version}{was}.",
            "It stays there, wherever the registry moves the alias; `registry-gateway unpin "
            f"{name}` ends that.",
        )


def _say_decided(answer: RollbackAnswer | PinAnswer) -> None:
    """Say what was decided and not waited for."""
    (one,) = answer.explained
    say(f"{answer.model}@{answer.alias} is to be at version {answer.to_version}.", one.reason)


def unpin(reference: AliasArgument, *, as_json: AsJson = False) -> None:
    """Let an alias follow the registry again, after `pin` or `rollback`."""
    answer = ask("POST", "/unpin", UnpinAnswer, json=of_alias(reference))
    tell(answer, _say_unpin, as_json=as_json)
    _note_unrecorded(answer)


def _say_unpin(answer: UnpinAnswer) -> None:
    name, what = f"{answer.model}@{answer.alias}", "pinned" if answer.was_pinned else "held"
    say(f"{name} is no longer {what} at version {answer.was}.", _goes_on(answer))


def _goes_on(answer: UnpinAnswer) -> str:
    (one,) = answer.explained
    if one.aspired == one.version:
        return "It is where the registry wants it."
    if one.target is not None and one.why in ("under_way", "failing"):
        return f"It goes to version {one.target}, where the registry wants it."
    return f"It stays at version {one.version or '-'}: {one.reason}"


# --- freeze, unfreeze -----------------------------------------------------------------------------


def freeze(*, wait: Wait = True, as_json: AsJson = False) -> None:
    """Let no alias of this node follow the registry, until `unfreeze`.

    What was lost still comes back, and rollback and pin still move what they name.
    """
    answer = ask("POST", "/freeze", FreezeAnswer)
    for _ in pauses():
        if not (answer.moving and wait):
            break
        moving = ask("GET", "/freeze", FreezeAnswer).moving
        answer = answer.model_copy(update={"moving": moving})
    tell(answer, _say_freeze, as_json=as_json)
    _note_unrecorded(answer)
    end("pending" if answer.moving else "done")


def _say_freeze(answer: FreezeAnswer) -> None:
    if answer.changed:
        say(
            "This node is frozen.",
            "No alias follows the registry until `registry-gateway unfreeze`; rollback and pin "
            "still move what they name.",
        )
    elif answer.frozen:
        say(f"This node was frozen already, {ago(answer.frozen.at)}.")
    if answer.moving:
        still = ", ".join(answer.moving)
        say_error(f"What was decided before still moves aliases of: {still}. Freeze it again.")


def unfreeze(*, as_json: AsJson = False) -> None:
    """Let the aliases of this node follow the registry again."""
    answer = ask("POST", "/unfreeze", FreezeAnswer)
    tell(answer, _say_unfreeze, as_json=as_json)
    _note_unrecorded(answer)


def _say_unfreeze(answer: FreezeAnswer) -> None:
    if answer.changed:
        say("This node follows the registry again.")
    else:
        say("This node was not frozen.")


# --- a ledger that does not answer ----------------------------------------------------------------


def _note_unrecorded(answer: Decided | FreezeAnswer) -> None:
    """Say on stderr what is in force, and not in the ledger yet."""
    if answer.not_recorded is not None:
        note(f"It is in force, and {answer.not_recorded}.", style="yellow")
