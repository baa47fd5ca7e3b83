"""The remainder of a proof, in the background: one call of the model at a time.

A call begins only after the worker has been idle for the expected time of the call, and only if
that is a small part of the model's timeout: it bounds the delay of a request. A worker that is
never idle, because too few rows are joined, spends a small part of its time on very short calls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from gateway.worker.loading.proofs.proof import MAX_LOST, Proof, longest_call_s
from gateway.worker.loading.proofs.prover import Prover
from gateway.worker.protocol.messages import Message, Proved, Proving

TIMES_THE_BUDGET = 10
"""Time of all calls of all workers of an artifact, in budgets."""
_BESIDE = 0.1
"""The longest call while requests wait, as a part of the longest background call."""
_SHARE_BESIDE = 0.1
"""The part of the time that calls may take while requests wait."""
_TOO_LONG = 3
"""A call is too long if it takes this many times the longest call."""
_MOST_HICCUPS = 2
"""Calls that are too long without computing, after which a worker stops proving."""


class Background:
    """The remaining proof; an idle serving loop calls `step`.

    ``budget_s`` is the budget of the proof in the warm-up.
    """

    def __init__(
        self,
        prover: Prover,
        proof: Proof,
        budget_s: float,
        report: Callable[[Message], None],
        *,
        timeout_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.proof = proof
        self._prover = prover
        self._longest_s = longest_call_s(budget_s, timeout_s)
        self._remaining_s = TIMES_THE_BUDGET * budget_s - proof.spent_s
        self._report = report
        self._clock = clock
        self._hiccups = 0
        self._longest_beside_s = _BESIDE * self._longest_s
        self._step_s = 0.0
        self._stepped_at = clock()
        self._record_pause()

    @property
    def pause_s(self) -> float | None:
        """Idle seconds required before the next call, or None if there is none now."""
        if self._prover.over:
            return None
        expected_s = self._prover.expected_s
        return expected_s if expected_s <= min(self._longest_s, self._remaining_s) else None

    @property
    def is_due(self) -> bool:
        """Whether a call is allowed while requests wait."""
        expected_s = self.pause_s
        if expected_s is None or expected_s > self._longest_beside_s:
            return False
        wait_s = max(expected_s, self._step_s) / _SHARE_BESIDE
        return self._clock() - self._stepped_at >= wait_s

    @property
    def over(self) -> bool:
        """Whether the proof or its time has ended."""
        return self._prover.over or self._remaining_s <= 0

    def saw(self, rows: int, seconds: float) -> None:
        """Record the time of a call for requests."""
        self._prover.pace.took(rows, seconds)

    def step(self) -> None:
        """Make one call of the model; report the proof before it, as lost, and after it."""
        lost = min(self.proof.lost + 1, MAX_LOST)
        self._report(Proving(replace(self.proof, lost=lost).as_header()))
        rows = self._prover.next_rows
        seconds = self._prover.step()
        self._remaining_s -= seconds
        self.proof.spent_s += seconds
        self._step_s, self._stepped_at = seconds, self._clock()
        if self._prover.broken_off is not None:
            self.proof.lose(lost, self._prover.broken_off)
        else:
            if seconds > self._longest_s:
                self._was_late(rows, seconds, lost)
            self._record_pause()
        self._report(Proved(self.proof.as_header()))

    def _was_late(self, rows: int, seconds: float, lost: int) -> None:
        """Ignore a call during which the machine was busy; stop proving if it was too long."""
        too_long = seconds > _TOO_LONG * self._longest_s
        computed = self._prover.computed_s > self._longest_s
        self._hiccups += too_long
        if too_long and (computed or self._hiccups >= _MOST_HICCUPS):
            self.proof.lost = lost if computed else self.proof.lost
            self._remaining_s = 0.0
        elif not computed:
            self._prover.pace.forget(rows)
            self._step_s = 0.0

    def _record_pause(self) -> None:
        """Record in the proof why it is paused, or that it is not."""
        why = None
        if self._remaining_s <= 0:
            why = f"calls took {self.proof.spent_s:.3g} s, the last one {self._step_s:.3g} s"
            self.proof.give_up(why)
        elif not self._prover.over and self.pause_s is None:
            why = (
                f"a call of {self._prover.next_rows} rows would take about "
                f"{self._prover.expected_s:.3g} s, and callers may wait for {self._longest_s:.3g} s"
            )
        self.proof.pause_at(None if self._prover.over else why)
