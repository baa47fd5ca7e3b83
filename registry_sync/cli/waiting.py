"""Wait for the outcome of a decision: ask for its explanation until the outcome is final."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, NoReturn, TypeVar

import typer

from registry_sync.cli.client import call
from registry_sync.cli.output import end, print_answer, print_done, print_note
from registry_sync.domain import (
    DecisionAnswer,
    ExplainAnswer,
    FreezeAnswer,
    HoldState,
    Outcome,
    PinAnswer,
    QuarantineAnswer,
    RetryAnswer,
    RollbackAnswer,
    SelectorState,
)

LONGEST_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_ON_THEIR_WAY = frozenset({"under_way", "failing"})
_KEPT_AWAY = frozenset({"frozen", "awaits_window", "pinned", "held", "on_demand"})
_WHERE_THEY_SHOULD_BE = frozenset({"follows", "gone"}) | _KEPT_AWAY

Wait = Annotated[
    bool, typer.Option(help="Wait for the outcome, up to a minute, or return at once.")
]
_Decided = TypeVar("_Decided", bound=DecisionAnswer)
_Finished = TypeVar("_Finished", bound=DecisionAnswer | FreezeAnswer)


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """The outcome of a decision; ``final`` if waiting cannot change it."""

    outcome: Outcome
    reason: str | None = None
    final: bool = True


Judge = Callable[[ExplainAnswer], WaitOutcome]


def conclude(
    answer: _Decided,
    judge: Judge,
    selector: str | None,
    print_it: Callable[[_Decided], None],
    *,
    wait: bool,
    as_json: bool,
    ends_at: float | None = None,
) -> NoReturn:
    """Wait for the outcome of a decision, if ``wait``; print it, and end the command.

    ``ends_at`` is as in `pauses`.
    """
    if not wait:
        finish(answer, _print_recorded, as_json=as_json, waited=False)
    if answer.outcome == "pending":
        answer = wait_for(answer, judge, selector, ends_at=ends_at)
    finish(answer, print_it, as_json=as_json)


def finish(
    answer: _Finished,
    print_it: Callable[[_Finished], None],
    *,
    as_json: bool,
    waited: bool = True,
) -> NoReturn:
    """Print an answer, and on stderr why the ledger lacks the decision; end the command."""
    print_answer(answer, print_it, as_json=as_json)
    if answer.not_recorded is not None:
        print_note(f"It is in force, and {answer.not_recorded}.", style="yellow")
    end(answer.outcome, waited=waited)


def _print_recorded(answer: DecisionAnswer) -> None:
    """Print a decision without its outcome."""
    print_done(
        "The control plane carries it out.",
        *(f"{answer.model} {one.selector}: {one.reason}" for one in answer.explained),
    )


def end_of_wait() -> float:
    """Return when the longest wait from now on ends, by the monotonic clock, in seconds."""
    return time.monotonic() + LONGEST_S


def pauses(ends_at: float | None = None) -> Iterator[None]:
    """Yield at once, and again after a pause each, until the longest wait is over.

    ``ends_at`` is a result of `end_of_wait`, or None for a wait that begins now.
    """
    ends_at, pause_s = ends_at or end_of_wait(), _FIRST_PAUSE_S
    yield
    while (left_s := ends_at - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        yield


def wait_for(
    answer: _Decided, judge: Judge, selector: str | None = None, *, ends_at: float | None = None
) -> _Decided:
    """Return an answer with its outcome, once that is final or the longest wait is over.

    ``ends_at`` is as in `pauses`.
    """
    query = {"model": answer.model} | ({"selector": selector} if selector else {})
    for _ in pauses(ends_at):
        found = call("GET", "/explain", ExplainAnswer, params=query)
        ending = judge(found)
        answer = with_ending(answer, ending, found)
        if ending.final:
            break
    return answer


def with_ending(answer: _Decided, ending: WaitOutcome, found: ExplainAnswer) -> _Decided:
    """Return an answer with the outcome that an explanation shows."""
    update = {"outcome": ending.outcome, "reason": ending.reason, "explained": found.selectors}
    return answer.model_copy(update=update)


# --- judges: pure ---------------------------------------------------------------------------------


def of_hold(answer: RollbackAnswer | PinAnswer) -> Judge:
    """Return a judge of a hold: it serves, cannot serve, or is over."""
    made = answer.explained[0].hold

    def judge(found: ExplainAnswer) -> WaitOutcome:
        (one,) = found.selectors
        if _identity(one.hold) != _identity(made):
            return WaitOutcome("refused", _replaced(one.hold))
        if one.why in ("pinned", "held"):
            return WaitOutcome("active", final=not _is_undecided(found))
        if one.why in _ON_THEIR_WAY:
            reason = one.failure or found.gateway_error or one.reason
            return WaitOutcome("pending", reason, final=False)
        return WaitOutcome("refused", one.reason)

    return judge


def _identity(hold: HoldState | None) -> tuple[int, bool, float] | None:
    return (hold.version, hold.pinned, hold.at) if hold else None


def _replaced(hold: HoldState | None) -> str:
    if hold is None:
        return "the hold was ended meanwhile: the alias follows the registry again"
    how = "pinned" if hold.pinned else "held"
    return (
        f"another decision has replaced this one: the alias is {how} at version {hold.version} "
        f"by {hold.asked_by}"
    )


def _is_undecided(found: ExplainAnswer) -> bool:
    return "decide" in found.doing or "move" in found.doing


def of_bytes(found: ExplainAnswer) -> WaitOutcome:
    """Judge whether a version's bytes are here, wrong, or could not be fetched."""
    (one,) = found.selectors
    if one.doing or "decide" in found.doing:
        return WaitOutcome("pending", one.failure or one.reason, final=False)
    if one.why == "available":
        return WaitOutcome("accepted")
    if one.why == "quarantined":
        return WaitOutcome("refused", one.failure or one.reason)
    return WaitOutcome("pending", one.failure or one.reason)


def of_acceptance(answer: QuarantineAnswer) -> Judge:
    """Return a judge of an acceptance: the bytes are accepted, or refused."""

    def judge(found: ExplainAnswer) -> WaitOutcome:
        ending, (one,) = of_bytes(found), found.selectors
        failure = one.failure
        if ending.outcome != "refused" or failure is None or failure in one.reason:
            return ending
        again = f"run `registry-gateway quarantine accept {answer.model}/{answer.version}` again"
        return WaitOutcome("refused", f"{failure}; nothing has changed: {again}")

    return judge


def of_retry(answer: RetryAnswer) -> Judge:
    """Return a judge of a retry, by the aliases that want the version."""

    def judge(found: ExplainAnswer) -> WaitOutcome:
        concerned = [one for one in found.selectors if one.aspired == answer.version]
        worst = max(concerned, key=_rank_of_retry, default=None)
        if worst is None:
            return WaitOutcome("ended", "the registry points no alias at it")
        outcome = _RETRIED[_rank_of_retry(worst)]
        moves = _is_undecided(found) or any(one.why == "under_way" for one in concerned)
        reason = None if outcome == "active" else worst.reason
        return WaitOutcome(outcome, reason, final=not moves or found.gateway_error is not None)

    return judge


_RETRIED: tuple[Outcome, ...] = ("active", "ended", "pending", "refused")
"""The worst last."""


def _rank_of_retry(one: SelectorState) -> int:
    if one.why == "follows":
        return 0
    if one.why in _KEPT_AWAY:
        return 1
    return 2 if one.why in _ON_THEIR_WAY else 3


def of_sync(found: ExplainAnswer) -> WaitOutcome:
    """Judge whether the registry is listed, and every alias is where it can be."""
    if "list" in found.doing:
        reason = f"the registry has not answered within {LONGEST_S:g} s"
        return WaitOutcome("pending", reason, final=False)
    whys = {one.why for one in found.selectors}
    problem = found.source_error
    moves = found.gateway_error is None and (
        _is_undecided(found) or any(map(_moves, found.selectors))
    )
    if problem is not None or whys - _WHERE_THEY_SHOULD_BE - _ON_THEIR_WAY:
        return WaitOutcome("refused", problem, final=not moves)
    return WaitOutcome("pending" if whys & _ON_THEIR_WAY else "done", final=not moves)


def _moves(one: SelectorState) -> bool:
    """Whether waiting helps an alias: a step is under way, or has not failed yet."""
    begins = one.why == "under_way" and one.target is not None and one.failure is None
    return begins or bool(one.doing)
