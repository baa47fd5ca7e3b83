"""Decisions of operators against the registry: rollback, pin and freeze, and their ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from registry_sync.cli.arguments import AliasArgument, AsJson, of_alias
from registry_sync.cli.client import call
from registry_sync.cli.output import ago, print_done, print_error
from registry_sync.cli.waiting import (
    Wait,
    conclude,
    end_of_wait,
    finish,
    of_bytes,
    of_hold,
    pauses,
    wait_for,
)
from registry_sync.domain import FreezeAnswer, PinAnswer, RollbackAnswer, UnpinAnswer

# --- rollback -------------------------------------------------------------------------------------


def rollback(
    reference: AliasArgument,
    *,
    to: Annotated[
        int | None, typer.Option(min=1, help="The version; by default the alias's previous one.")
    ] = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Return an alias to its previous version, and hold it there.

    The hold ends when the registry moves the alias to another version than now. Works with the
    registry down.
    """
    body = {**of_alias(reference), "version": to}
    answer = call("POST", "/rollback", RollbackAnswer, json=body)
    selector = f"@{answer.alias}"
    conclude(answer, of_hold(answer), selector, _print_rollback, wait=wait, as_json=as_json)


def _print_rollback(answer: RollbackAnswer) -> None:
    name = f"{answer.model}@{answer.alias}"
    if answer.outcome == "active":
        print_done(
            f"{name} is back at version {answer.to_version} (was {answer.from_version}).",
            *_hold_lines(answer, name),
        )
    elif answer.outcome == "refused":
        _print_refused(answer, name)
    else:
        print_error(
            f"{name} goes back to version {answer.to_version}, and still serves version "
            f"{answer.from_version}: {answer.reason}. The node keeps trying; see "
            "`registry-gateway status`."
        )


def _hold_lines(answer: RollbackAnswer, name: str) -> Iterator[str]:
    """Yield the end of a pin, if there was one, and until when the hold lasts."""
    if answer.was_pinned:
        yield f"It was pinned before; `registry-gateway pin {name} …` pins it again."
    hold = answer.explained[0].hold
    if hold is None or hold.while_aspired is None:
        yield "The hold ends when the registry moves the alias from its next listed version."
    else:
        yield (
            "The hold lasts while the registry's alias points at version "
            f"{hold.while_aspired}; move the alias in the registry to end it."
        )


def _print_refused(answer: RollbackAnswer | PinAnswer, name: str) -> None:
    print_error(f"{name} is not at version {answer.to_version}: {answer.reason}")
    version = answer.explained[0].version or "-"
    print_error(f"It means version {version}; see `registry-gateway explain`.")


# --- pin, unpin -----------------------------------------------------------------------------------


def pin(
    reference: AliasArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version that the alias keeps.")],
    *,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Keep an alias at a version, wherever the registry moves it, until `unpin`.

    A version without bytes on this node is fetched and verified first.
    """
    body = {**of_alias(reference), "version": version}
    ends_at = end_of_wait()
    answer = call("POST", "/pin", PinAnswer, json=body)
    for _ in pauses(ends_at):
        if answer.pinned or not wait:
            break
        answer = wait_for(answer, of_bytes, str(version), ends_at=ends_at)
        if answer.outcome != "accepted":
            break
        answer = call("POST", "/pin", PinAnswer, json=body)
    if answer.pinned:
        selector = f"@{answer.alias}"
        conclude(
            answer,
            of_hold(answer),
            selector,
            _print_pin,
            wait=wait,
            as_json=as_json,
            ends_at=ends_at,
        )
    update = {"outcome": "pending" if answer.explained[0].doing else "refused"}
    finish(answer.model_copy(update=update), _print_not_pinned, as_json=as_json)


def _print_not_pinned(answer: PinAnswer) -> None:
    where = f" at version {answer.from_version}" if answer.from_version else " as it was"
    reason = answer.reason or f"{answer.explained[0].reason}; pin it again after the fetch"
    print_error(f"{answer.model}@{answer.alias} is not pinned, and stays{where}: {reason}")


def _print_pin(answer: PinAnswer) -> None:
    name = f"{answer.model}@{answer.alias}"
    if answer.outcome == "refused":
        _print_refused(answer, name)
    elif answer.outcome == "pending":
        print_error(
            f"{name} is pinned at version {answer.to_version}, and not active there yet: "
            f"{answer.reason}. The node keeps trying; see `registry-gateway explain`."
        )
    else:
        was = f" (was {answer.from_version})" if answer.from_version else ""
        print_done(
            f"{name} is pinned at version {answer.to_version}{was}.",
            f"The registry cannot move it; `registry-gateway unpin {name}` ends the pin.",
        )


def unpin(reference: AliasArgument, *, as_json: AsJson = False) -> None:
    """End the pin or the hold of an alias, so that it follows the registry again."""
    answer = call("POST", "/unpin", UnpinAnswer, json=of_alias(reference))
    finish(answer, _print_unpin, as_json=as_json)


def _print_unpin(answer: UnpinAnswer) -> None:
    (one,) = answer.explained
    if one.aspired == one.version:
        follows = "It is at the registry's version."
    elif one.target is not None and one.why in ("under_way", "failing"):
        follows = f"It goes to version {one.target}, the registry's."
    else:
        follows = f"It stays at version {one.version or '-'}: {one.reason}"
    kept = "pinned" if answer.was_pinned else "held"
    print_done(
        f"{answer.model}@{answer.alias} is no longer {kept} at version {answer.was}.", follows
    )


# --- freeze, unfreeze -----------------------------------------------------------------------------


def freeze(*, wait: Wait = True, as_json: AsJson = False) -> None:
    """Stop every alias of this node from following the registry, until `unfreeze`.

    Lost versions still come back; rollback and pin still move their alias.
    """
    answer = call("POST", "/freeze", FreezeAnswer)
    for _ in pauses():
        if not (answer.moving and wait):
            break
        moving = call("GET", "/freeze", FreezeAnswer).moving
        answer = answer.model_copy(update={"moving": moving})
    finish(answer, _print_freeze, as_json=as_json, waited=wait)


def _print_freeze(answer: FreezeAnswer) -> None:
    if answer.changed:
        print_done(
            "This node is frozen.",
            "No alias follows the registry until `registry-gateway unfreeze`; rollback and pin "
            "still move their alias.",
        )
    elif answer.frozen:
        print_done(f"This node was frozen already, {ago(answer.frozen.at)}.")
    if answer.moving:
        models = ", ".join(answer.moving)
        print_error(f"Earlier decisions still move aliases of: {models}. Freeze the node again.")


def unfreeze(*, as_json: AsJson = False) -> None:
    """Let the aliases of this node follow the registry again."""
    finish(call("POST", "/unfreeze", FreezeAnswer), _print_unfreeze, as_json=as_json)


def _print_unfreeze(answer: FreezeAnswer) -> None:
    print_done(
        "This node follows the registry again." if answer.changed else "This node was not frozen."
    )
