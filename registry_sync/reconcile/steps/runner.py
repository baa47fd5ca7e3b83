"""Runs steps: one per subject, a few per kind, and again after a failure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Set as AbstractSet
from dataclasses import dataclass, field

import structlog

from registry_sync.domain import Attempt
from registry_sync.errors import IncompleteArtifactError, SyncError, UnstableUploadError
from registry_sync.planning import (
    Action,
    Activate,
    AllowDigest,
    BuildEnvironment,
    EndHold,
    Fetch,
    RetireAlias,
    RetireStandby,
    Stage,
    StartOutcome,
    Subject,
    Urgency,
    goal_of,
    subject_of,
    verb_of,
)
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.backoff import FIRST_S, Backoff
from registry_sync.reconcile.steps.executor import Executor
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch

_WANTED_RETRY_S = 5.0
_UPLOAD_RETRY_S = 10.0
_COSTLY_RETRY_S, _COSTLY_LONGEST_S = 120.0, 3600.0  # jitter makes the first a minute at least
_SLOTS = {
    Fetch: 3,
    BuildEnvironment: 1,
    Stage: 2,
    Activate: 8,
    RetireAlias: 4,
    RetireStandby: 4,
    EndHold: 4,
    AllowDigest: 4,
}
_URGENT_EXTRA_SLOTS = 2
_URGENT = frozenset({Urgency.WANTED, Urgency.ACTIVATE, Urgency.PROMOTION, Urgency.RECOVERY})
_NO_EFFECT = "the action succeeded but had no effect; it is tried again"
_REPEAT_S = 1.0
"""The pause before a completed action may begin again."""
_PER_MODEL = {Fetch: 2, BuildEnvironment: 1}
_log = structlog.get_logger("registry_sync.reconcile.steps.runner")


@dataclass
class Steps:
    """Runs actions as tasks. Event loop only; the owner must await `end`.

    Attributes:
        busy: The tasks of the steps under way, by subject.
        backoff: The failures, and when each step is tried again.
    """

    context: Context
    executor: Executor
    backoff: Backoff
    busy: dict[Subject, asyncio.Task[None]] = field(default_factory=dict)
    _doing: dict[Subject, Action] = field(default_factory=dict)
    _wakes: dict[str, float] = field(default_factory=dict)
    _looked_at: float = -math.inf
    # Completed actions and their times, kept while the actions stay due.
    _completed: dict[Subject, tuple[Action, float]] = field(default_factory=dict)

    def doing(self) -> Iterable[Action]:
        """Return the actions under way."""
        return self._doing.values()

    def start(self, action: Action) -> StartOutcome:
        """Start a step unless it is under way, waits for its next try, or finds no slot."""
        subject = subject_of(action)
        longest_s = _longest_wait_s(action)
        until = self.backoff.waits_until(subject, longest_s=longest_s, goal=goal_of(action))
        if until is not None:
            self._wake_at(action.model, until)
            return StartOutcome.WAITS
        if subject in self.busy:
            self._overtake(subject, action)
            return StartOutcome.WAITS
        if self._was_just_completed(subject, action):
            self._wake_at(action.model, self.context.clock() + _REPEAT_S)
            return StartOutcome.WAITS
        if self._waits_for_its_model(action):
            return StartOutcome.WAITS
        if not self._has_slot(action):
            return StartOutcome.NO_SLOT
        self._doing[subject] = action
        task = asyncio.get_running_loop().create_task(self._step(subject, action))
        self.busy[subject] = task
        task.add_done_callback(lambda _: self._ended(subject, action.model))
        return StartOutcome.BEGUN

    def _wake_at(self, model: str, at: float) -> None:
        """Schedule a new plan of a model at a time, in epoch seconds."""
        self._wakes[model] = min(at, self._wakes.get(model, at))

    def woken(self) -> frozenset[str]:
        """Return the models whose time has come, and forget their times."""
        now, before = self.context.clock(), self._looked_at
        self._looked_at = now
        # After the clock was set back, the remaining waits are unknown.
        woken = {model for model, at in self._wakes.items() if at <= now or now < before}
        for model in woken:
            del self._wakes[model]
        return frozenset(woken)

    def forget_idle(self, actions: Iterable[Action], models: AbstractSet[str]) -> None:
        """Forget failures and completions of steps that are neither due nor under way."""
        doing = (action for action in self._doing.values() if action.model in models)
        alive = {*actions, *doing}
        self.backoff.keep_only((subject_of(action) for action in alive), models)
        for subject, (action, _) in list(self._completed.items()):
            if action.model in models and action not in alive:
                del self._completed[subject]

    def next_try_at(self) -> float | None:
        """Return the earliest time of a scheduled plan, in epoch seconds, or None."""
        return min(self._wakes.values(), default=None)

    def try_now(self, model: str) -> None:
        """End the waits of all steps of a model."""
        for subject in self.backoff.failures(model):
            self.backoff.succeeded(subject)

    async def end(self) -> None:
        """Cancel all steps, and wait until they have ended."""
        tasks = list(self.busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _was_just_completed(self, subject: Subject, action: Action) -> bool:
        """Whether an action's effect may not be observed yet."""
        before, at = self._completed.get(subject, (None, 0.0))
        return before == action and 0.0 <= self.context.clock() - at < _REPEAT_S

    def _note_completion(self, subject: Subject, action: Action) -> None:
        """Record a completion; back off actions that succeed but stay due."""
        if self._completed.get(subject, (None, 0.0))[0] == action:
            self._failed(subject, action, StepFailure(_NO_EFFECT))
        else:
            self.backoff.succeeded(subject)
        self._completed[subject] = action, self.context.clock()

    def _waits_for_its_model(self, action: Action) -> bool:
        """Whether the limit of fetches, or of builds, of the action's model is reached.

        Slow storage, or a slow build, must delay its own model only.
        """
        if not isinstance(action, Fetch | BuildEnvironment):
            return False
        alike = (one for one in self._doing.values() if type(one) is type(action))
        return sum(one.model == action.model for one in alike) >= _PER_MODEL[type(action)]

    def _has_slot(self, action: Action) -> bool:
        alike = [one for one in self._doing.values() if type(one) is type(action)]
        extra = _URGENT_EXTRA_SLOTS if action.urgency in _URGENT else 0
        return len(alike) < _SLOTS[type(action)] + extra

    def _overtake(self, subject: Subject, action: Action) -> None:
        """Cancel a step that blocks a due action; the next pass starts the action."""
        doing = self._doing[subject]
        if self.executor.may_overtake(doing, action):
            by = getattr(action, "version", None)
            _log.info(f"{verb_of(doing)}.overtaken", **_fields(doing), by=by)
            self.busy[subject].cancel()

    def _ended(self, subject: Subject, model: str) -> None:
        self.busy.pop(subject, None)
        self._doing.pop(subject, None)
        self.context.changes.note({model})

    async def _step(self, subject: Subject, action: Action) -> None:
        """Run one step and record its outcome. A fault stays in its model."""
        started_at = self.context.clock()
        watch = Stopwatch()
        try:
            stopped = await self.executor(action, watch)
        except SyncError as error:
            stopped = StepFailure(
                error.reason,
                unfinished=isinstance(error, IncompleteArtifactError),
                short_lived=isinstance(error, UnstableUploadError),
            )
        except Exception as error:  # noqa: BLE001 - a fault must not affect other models
            _log.exception("step.failed", model=action.model, action=subject)
            stopped = StepFailure(f"internal error: {type(error).__name__}")
        if stopped is None:
            self._note_completion(subject, action)
        else:
            self._failed(subject, action, stopped)
        await self.context.journal.note(
            self.context.ledger.attempted, _attempt(action, started_at, watch, stopped)
        )

    def _failed(self, subject: Subject, action: Action, stopped: StepFailure) -> None:
        longest_s = _UPLOAD_RETRY_S if stopped.unfinished else _longest_wait_s(action)
        failure = self.backoff.failed(
            subject,
            stopped.reason,
            first_s=_COSTLY_RETRY_S if stopped.costly else FIRST_S,
            longest_s=_COSTLY_LONGEST_S if stopped.costly else longest_s,
            goal=goal_of(action),
            short_lived=stopped.short_lived,
        )
        # Even if the step is not due by then: the model's description must lose the failure.
        self._wake_at(action.model, failure.retry_at)
        how = "refused" if stopped.refused else "failed"
        _log.warning(
            f"{verb_of(action)}.{how}",
            **_fields(action),
            reason=stopped.reason,
            failures=failure.count,
        )


def _longest_wait_s(action: Action) -> float | None:
    """Return the longest wait before the next try if callers wait for bytes, or None."""
    brings = isinstance(action, Fetch | BuildEnvironment)
    return _WANTED_RETRY_S if brings and action.urgency is Urgency.WANTED else None


def _fields(action: Action) -> dict[str, str | int | None]:
    """Return the fields of a log event about an action."""
    return {
        "model": action.model,
        "alias": getattr(action, "alias", None),
        "version": getattr(action, "version", None),
    }


def _attempt(
    action: Action, started_at: float, watch: Stopwatch, stopped: StepFailure | None
) -> Attempt:
    outcome = "complete" if stopped is None else "refused" if stopped.refused else "failed"
    return Attempt(
        model=action.model,
        alias=getattr(action, "alias", None),
        version=getattr(action, "version", None),
        action=verb_of(action),
        asked_by=action.asked_by,
        started_at=started_at,
        durations_s=watch.seconds,
        outcome=outcome,
        reason=stopped.reason if stopped else None,
    )
