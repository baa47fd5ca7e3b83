"""A proof, one call of the model at a time: whoever proves may stop between any two.

A proof is a generator: it gives the next `Ask`, is sent the `Answer`, and writes down what it finds
as it finds it. So what is found holds, whenever it is left.
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
class Ask:
    """One call of the model that a proof needs; the inputs stay as they are."""

    call: Call
    inputs: Inputs


@dataclass(frozen=True)
class Answer:
    """What came of it: an output, or what was raised."""

    output: Any = None
    raised: BaseException | None = None


Asking = Generator[Ask, Answer, T]


class Pace:
    """How long calls of a model take, by their number of rows.

    A machine may be busy with something else during a call. So of the last few calls of a size the
    quickest counts, and a size that many calls of others have followed says nothing any more.
    """

    def __init__(self, first_s: float = 0.0) -> None:
        """Begin with the first call's seconds: most of them may be for what is done but once."""
        self._first_s = first_s
        self._calls = 0
        self._took: dict[int, tuple[int, list[float]]] = {}  # the size called longest ago is first

    def took(self, rows: int, seconds: float) -> None:
        """Remember a call."""
        self._calls += 1
        _, before = self._took.pop(rows, (0, []))
        self._took[rows] = (self._calls, [*before[1 - _MOST_CALLS :], seconds])
        oldest = next(iter(self._took))
        if len(self._took) > _MOST_SIZES or self._took[oldest][0] <= self._calls - _FADED_AFTER:
            del self._took[oldest]

    def forget(self, rows: int) -> None:
        """Forget a call that says nothing of others."""
        self._took.pop(rows, None)

    def expected_s(self, rows: int) -> float:
        """Return the seconds of a call: as one of no more rows, and in proportion to them."""
        if not self._took:
            return self._first_s
        known = max((one for one in self._took if one <= rows), default=0)
        seconds = min(self._took[known or min(self._took)][1])
        return seconds * rows / known if known else seconds


_DISTURBED = 2
"""Times what was expected, and times what it computed: what a call took that says nothing of the
next. One such call would keep all larger ones from being tried."""
_MOST_SIZES = 64
_MOST_CALLS = 3
"""Of a size, that are remembered."""
_FADED_AFTER = 256
"""Calls of any size, after which one is forgotten."""


class Prover:
    """Asks what a proof wants to know.

    Attributes:
        pace: Of the model.
        spent_s: Seconds that its calls have taken.
        computed_s: Seconds of the last call in which the process computed.
        broken_off: Why a call failed that another worker's may not, if one did: such a failure
            proves nothing, and nothing more is asked.
    """

    def __init__(
        self,
        asking: Asking[None],
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """Store; nothing is asked yet."""
        self.pace = pace
        self.spent_s = 0.0
        self.computed_s = 0.0
        self.broken_off: str | None = None
        self._asking = asking
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._next: Ask | None = None
        self._advance(lambda: next(asking))

    @property
    def over(self) -> bool:
        """Whether there is nothing left to ask."""
        return self._next is None

    @property
    def next_rows(self) -> int:
        """The number of rows of the next call, or 0 if no call is left."""
        return self._next.inputs.rows if self._next is not None else 0

    @property
    def expected_s(self) -> float:
        """How many seconds the next call will take, as far as is known."""
        return self.pace.expected_s(self.next_rows) if self._next is not None else 0.0

    def step(self) -> float:
        """Make the next call; return how many seconds it took, what is concluded included."""
        ask = self._next
        if ask is None:
            return 0.0
        began = self._clock()
        answer = self._call(ask)
        fault = passing_in_a_call(answer.raised) if answer.raised is not None else None
        if fault is not None:
            self._next, self.broken_off = None, f"a call met {name_of(fault)}, which may pass"
        else:
            self._advance(lambda: self._asking.send(answer))
        seconds = self._clock() - began
        self.spent_s += seconds
        return seconds

    def _call(self, ask: Ask) -> Answer:
        """Make a call; learn how long it takes, unless the machine was busy with something else."""
        expected_s = self.pace.expected_s(ask.inputs.rows)
        began, computed_before = self._clock(), self._cpu_clock()
        answer = _answer(ask)
        seconds = self._clock() - began
        self.computed_s = self._cpu_clock() - computed_before
        if seconds <= _DISTURBED * expected_s or self.computed_s * _DISTURBED >= seconds:
            self.pace.took(ask.inputs.rows, seconds)
        return answer

    def run(self, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Ask until all is known, or ``may_go_on`` says no."""
        while not self.over and may_go_on():
            self.step()

    def _advance(self, go_on: Callable[[], Ask]) -> None:
        try:
            self._next = go_on()
        except StopIteration:
            self._next = None


def _answer(ask: Ask) -> Answer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that nobody sent
            return Answer(ask.call(ask.inputs.copy()))
    except BaseException as error:  # noqa: BLE001  # a model may raise SystemExit too
        return Answer(raised=error)
