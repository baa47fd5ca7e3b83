"""The rest of a proof, while no request waits: one call of the model at a time.

A call begins only after the worker has been idle for as long as it will take, and only if that is
short: a caller who comes during it waits for no more than that, and for no more than a small part
of the time that an answer of the model may take. A worker that is never idle, since
too few rows are joined, would stay so for ever: beside requests that wait, a call that is very
short may take a small part of the time.
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
"""How long all calls of all workers of an artifact may take together."""
_BESIDE = 0.1
"""Of the longest call: how long one call may take while requests wait."""
_SHARE_BESIDE = 0.1
"""Of the time: how much of it calls may take while requests wait."""
_TOO_LONG = 3
"""Times the longest call: one that took longer than this counts."""
_MOST_HICCUPS = 2
"""Calls of one worker that take so long although they compute little; then it proves no more."""


class Background:
    """What is left to prove. The serving loop calls it when it has nothing else to do."""

    def __init__(
        self,
        prover: Prover,
        proof: Proof,
        budget_s: float,
        tell: Callable[[Message], None],
        *,
        timeout_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store.

        Args:
            prover: Asks; ``proof`` changes with what it finds.
            proof: What holds now.
            budget_s: Seconds for a proof, in the warm-up.
            tell: Sends a message to the gateway.
            timeout_s: Seconds that an answer of the model may take.
            clock: Monotonic seconds.
        """
        self.proof = proof
        self._prover = prover
        self._longest_s = longest_call_s(budget_s, timeout_s)
        self._left_s = TIMES_THE_BUDGET * budget_s - proof.spent_s
        self._tell = tell
        self._clock = clock
        self._hiccups = 0
        self._longest_beside_s = _BESIDE * self._longest_s
        self._step_s = 0.0
        self._stepped_at = clock()
        self._say_why_no_more()

    @property
    def pause_s(self) -> float | None:
        """For how long nothing must have come before the next call; None: there is none now."""
        if self._prover.over:
            return None
        expected_s = self._prover.expected_s
        return expected_s if expected_s <= min(self._longest_s, self._left_s) else None

    @property
    def is_due(self) -> bool:
        """Whether a call may be made although requests wait."""
        expected_s = self.pause_s
        if expected_s is None or expected_s > self._longest_beside_s:
            return False
        rest_s = max(expected_s, self._step_s) / _SHARE_BESIDE
        return self._clock() - self._stepped_at >= rest_s

    @property
    def over(self) -> bool:
        """Whether there is nothing left, or no time for it."""
        return self._prover.over or self._left_s <= 0

    def saw(self, rows: int, seconds: float) -> None:
        """Learn from a call for a request how long calls take."""
        self._prover.pace.took(rows, seconds)

    def step(self) -> None:
        """Make one call of the model, and tell the gateway before and after it.

        Before it, what is to hold if the worker does not come back.
        """
        lost = min(self.proof.lost + 1, MAX_LOST)
        self._tell(Proving(replace(self.proof, lost=lost).as_header()))
        rows = self._prover.next_rows
        seconds = self._prover.step()
        self._left_s -= seconds
        self.proof.spent_s += seconds
        self._step_s, self._stepped_at = seconds, self._clock()
        if self._prover.broken_off is not None:
            self.proof.lose(lost, self._prover.broken_off)
        else:
            if seconds > self._longest_s:
                self._was_late(rows, seconds, lost)
            self._say_why_no_more()
        self._tell(Proved(self.proof.as_header()))

    def _was_late(self, rows: int, seconds: float, lost: int) -> None:
        """Forget a call in which the machine was busy with something else; end if it was long."""
        too_long = seconds > _TOO_LONG * self._longest_s
        computed = self._prover.computed_s > self._longest_s
        self._hiccups += too_long
        if too_long and (computed or self._hiccups >= _MOST_HICCUPS):
            self.proof.lost = lost if computed else self.proof.lost
            self._left_s = 0.0
        elif not computed:
            self._prover.pace.forget(rows)
            self._step_s = 0.0

    def _say_why_no_more(self) -> None:
        """Have the proof say why no more rows are proved; nothing, if more are about to be."""
        why = None
        if self._left_s <= 0:
            why = f"calls took {self.proof.spent_s:.3g} s, the last one {self._step_s:.3g} s"
            self.proof.give_up(why)
        elif not self._prover.over and self.pause_s is None:
            why = (
                f"a call of {self._prover.next_rows} rows would take about "
                f"{self._prover.expected_s:.3g} s, and callers may wait for {self._longest_s:.3g} s"
            )
        self.proof.leave_at(None if self._prover.over else why)
