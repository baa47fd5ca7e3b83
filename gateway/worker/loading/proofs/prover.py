"""Execution of a proof, one call of the model at a time.

A proof is a generator that yields the next `Question`, receives the `Answer`, and records each
finding at once, so that it may be stopped between any two calls.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.worker.loading.transient_faults import name_of, passing_in_a_call
from gateway.worker.rows.inputs import Inputs
from gateway.worker.served_model import Call

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A call of the model for a proof; the inputs are not changed."""

    call: Call
    inputs: Inputs


@dataclass(frozen=True)
class Answer:
    """The result of a call: an output or an error."""

    output: Any = None
    raised: BaseException | None = None


Asking = Generator[Question, Any, T]


class Pace:
    """The time of a model's calls, by number of rows.

    The fastest of the last few calls of a size is used, since the machine may be busy during a
    call. A size expires after many calls of other sizes. ``first_s`` is the time of the first call,
    which may include one-time work.
    """

    def __init__(self, first_s: float = 0.0) -> None:
        self._first_s = first_s
        self._calls = 0
        self._took: dict[int, tuple[int, list[float]]] = {}  # the size called longest ago is first

    def took(self, rows: int, seconds: float) -> None:
        """Record a call."""
        self._calls += 1
        _, before = self._took.pop(rows, (0, []))
        self._took[rows] = (self._calls, [*before[1 - _MOST_CALLS :], seconds])
        oldest = next(iter(self._took))
        if len(self._took) > _MOST_SIZES or self._took[oldest][0] <= self._calls - _FADED_AFTER:
            del self._took[oldest]

    def forget(self, rows: int) -> None:
        """Remove the calls of a size."""
        self._took.pop(rows, None)

    def expected_s(self, rows: int) -> float:
        """Return the expected seconds of a call, in proportion to the largest smaller one."""
        if not self._took:
            return self._first_s
        known = max((one for one in self._took if one <= rows), default=0)
        seconds = min(self._took[known or min(self._took)][1])
        return seconds * rows / known if known else seconds


_DISTURBED = 2
"""A call is ignored if it took this many times both its expected and its computed time: one such
call would prevent all larger ones."""
_MOST_SIZES = 64
_MOST_CALLS = 3
"""Recorded calls per size."""
_FADED_AFTER = 256
"""Calls of any size after which a size expires."""


class Prover:
    """Makes the calls of a proof.

    Attributes:
        pace: The time of the model's calls.
        spent_s: Seconds of all calls.
        computed_s: CPU seconds of the last call.
        broken_off: The reason for a transient failure of a call, which ends the proof, or None.
    """

    def __init__(
        self,
        asking: Asking[None],
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.pace = pace
        self.spent_s = 0.0
        self.computed_s = 0.0
        self.broken_off: str | None = None
        self._asking = asking
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._next: Question | None = None
        self._advance(None)

    @property
    def over(self) -> bool:
        """Whether no calls are left."""
        return self._next is None

    @property
    def next_rows(self) -> int:
        """The number of rows of the next call, or 0 if no call is left."""
        return self._next.inputs.rows if self._next is not None else 0

    @property
    def expected_s(self) -> float:
        """Expected seconds of the next call."""
        return self.pace.expected_s(self.next_rows) if self._next is not None else 0.0

    def step(self) -> float:
        """Make the next call; return its seconds, conclusions included."""
        ask = self._next
        if ask is None:
            return 0.0
        began = self._clock()
        answer = self._call(ask)
        fault = passing_in_a_call(answer.raised) if answer.raised is not None else None
        if fault is not None:
            self._next, self.broken_off = None, f"a call met {name_of(fault)}, which may pass"
        else:
            self._advance(answer)
        seconds = self._clock() - began
        self.spent_s += seconds
        return seconds

    def _call(self, ask: Question) -> Answer:
        """Make a call; record its time, unless the machine was busy."""
        expected_s = self.pace.expected_s(ask.inputs.rows)
        began, computed_before = self._clock(), self._cpu_clock()
        answer = _answer(ask)
        seconds = self._clock() - began
        self.computed_s = self._cpu_clock() - computed_before
        if seconds <= _DISTURBED * expected_s or self.computed_s * _DISTURBED >= seconds:
            self.pace.took(ask.inputs.rows, seconds)
        return answer

    def run(self, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Make calls while any are left and ``may_go_on()`` is true."""
        while not self.over and may_go_on():
            self.step()

    def _advance(self, answer: Answer | None) -> None:
        try:
            self._next = self._asking.send(answer)  # None starts it
        except StopIteration:
            self._next = None


def _answer(ask: Question) -> Answer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about generated numbers
            return Answer(ask.call(ask.inputs.copy()))
    except BaseException as error:  # noqa: BLE001  # a model may raise SystemExit too
        return Answer(raised=error)
