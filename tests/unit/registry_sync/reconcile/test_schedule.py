"""When jobs begin: one of each at a time, failures survived, by a clock that may jump."""

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings, strategies as st

from registry_sync.domain import PromotionWindows, parse_windows
from registry_sync.reconcile import schedule as module
from registry_sync.reconcile.schedule import Schedule
from tests.fakes import virtual_time
from tests.fakes.waiting import becomes
from tests.fakes.wall_clock import apscheduler_reads

HOUR_S = 3600.0
TEN_YEARS_S = 10 * 365.25 * 24 * HOUR_S
INTERVAL_S = 30.0
LONGEST_S = 2 * INTERVAL_S
EIGHT = dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC).timestamp()
AT_NINE = "0 9 * * * PT1H UTC"


class Job:
    """Counts its runs; each waits for the test, unless it is to fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.begun = self.ended = self.most = self._running = 0
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            if self.fails:
                raise ValueError("a fault")
            await self.go.wait()
            self.ended += 1
        finally:
            await asyncio.sleep(0.005)  # what a job has opened is closed, too
            self._running -= 1


@asynccontextmanager
async def running(made: Schedule) -> AsyncIterator[None]:
    task = asyncio.ensure_future(made.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        assert not task.done(), "it never ends by itself"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def schedule(poll: Job, sweep: Job, *, every_s: float = HOUR_S) -> Schedule:
    return Schedule(
        poll=poll,
        sweep=sweep,
        look=lambda: None,
        windows=(),
        poll_interval_s=every_s,
        sweep_interval_s=HOUR_S,
        jitter=lambda: 0.5,
        clock=time.time,
    )


class TestOneAtATime:
    async def test_the_first_poll_begins_at_once_and_the_first_sweep_does_not(self) -> None:
        poll, sweep = Job(), Job()
        async with running(schedule(poll, sweep)):
            await becomes(lambda: poll.begun, "it polls")
            assert sweep.begun == 0
        assert (poll.begun, poll.ended, poll.most) == (1, 0, 1), "the end waits for its job"
        assert poll._running == 0

    async def test_polls_never_overlap_and_outlive_a_fault(self) -> None:
        poll, sweep = Job(fails=True), Job()
        async with running(schedule(poll, sweep, every_s=0.02)):
            await becomes(lambda: poll.begun >= 3, "it goes on after a fault")
            poll.fails = False
            begun = poll.begun
            await becomes(lambda: poll.begun > begun, "it polls")
            poll.go.set()
            await becomes(lambda: poll.ended >= 3, "it goes on")
        assert poll.most == 1

    async def test_what_a_slow_job_was_too_late_for_is_left_out(self) -> None:
        poll, sweep = Job(), Job()
        async with running(schedule(poll, sweep, every_s=0.01)):
            await becomes(lambda: poll.begun, "it polls")
            loop = asyncio.get_running_loop()
            late = loop.time() + 0.1
            await becomes(lambda: loop.time() > late, "ten intervals have gone by")
            begun = poll.begun
            poll.go.set()
            await becomes(lambda: poll.ended > begun, "the next one comes")
            gone_s = loop.time() - late
        assert (begun, poll.most) == (1, 1)
        assert poll.begun - begun <= gone_s / 0.01 + 2, "it does not catch up"


class WallClock:
    """A wall clock over the virtual monotonic clock, which jumps when the test says so."""

    def __init__(self) -> None:
        self._at_zero = EIGHT

    def __call__(self) -> float:
        return self._at_zero + asyncio.get_running_loop().time()

    def jump(self, by_s: float) -> None:
        self._at_zero += by_s


class Town:
    """A schedule in virtual time, and when its jobs began by the monotonic clock."""

    def __init__(self, windows: PromotionWindows = ()) -> None:
        self.clock = WallClock()
        self.polls: list[float] = []
        self.sweeps: list[float] = []
        self.looks: list[float] = []
        self._windows = windows

    def run(self, for_s: float, *jumps: tuple[float, float]) -> None:
        """Run for some time, in which the clock jumps at some moments by some seconds."""
        virtual_time.run(self._run(for_s, jumps))

    async def _run(self, for_s: float, jumps: tuple[tuple[float, float], ...]) -> None:
        loop = asyncio.get_running_loop()

        async def poll() -> None:
            self.polls.append(loop.time())

        async def sweep() -> None:
            self.sweeps.append(loop.time())

        made = Schedule(
            poll=poll,
            sweep=sweep,
            look=lambda: self.looks.append(loop.time()),
            windows=self._windows,
            poll_interval_s=INTERVAL_S,
            sweep_interval_s=10 * INTERVAL_S,
            jitter=lambda: 0.5,
            clock=self.clock,
        )
        with apscheduler_reads(self.clock):
            async with running(made):
                for at, by_s in jumps:
                    loop.call_at(at, self.clock.jump, by_s)
                await asyncio.sleep(for_s)


def gaps(times: list[float], *, until: float) -> list[float]:
    return [after - before for before, after in zip(times, [*times[1:], until], strict=True)]


JUMPS_S = [HOUR_S, -HOUR_S, TEN_YEARS_S, -TEN_YEARS_S]


class TestAClockThatJumps:
    @pytest.mark.parametrize("by_s", JUMPS_S)
    @pytest.mark.parametrize("at", [0.5, 29.5, 30.0, 44.0, 299.9])
    def test_polls_and_sweeps_keep_their_interval(self, at: float, by_s: float) -> None:
        town, for_s = Town(), HOUR_S - 1
        town.run(for_s, (at, by_s))
        assert town.polls == pytest.approx([n * INTERVAL_S for n in range(120)], abs=0.02)
        assert max(gaps(town.sweeps, until=for_s)) <= 10 * INTERVAL_S + 0.02
        assert len(town.sweeps) <= for_s / (10 * INTERVAL_S) + 1, "one may come early, once"

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.tuples(st.floats(0, 1200), st.sampled_from(JUMPS_S) | st.floats(-100, 100)),
            max_size=4,
        )
    )
    def test_however_often_no_poll_is_late_and_none_comes_in_a_burst(
        self, jumps: list[tuple[float, float]]
    ) -> None:
        town, for_s = Town(parse_windows(AT_NINE)), 1500.0
        town.run(for_s, *jumps)
        assert max(gaps(town.polls, until=for_s)) <= LONGEST_S
        # One that is due by the new time, before the guard has seen it, comes early.
        assert len(town.polls) <= for_s / INTERVAL_S + 1 + len(jumps)
        assert len(town.looks) <= 2 * len(jumps) + 1

    def test_a_clock_that_is_slewed_is_no_jump(self) -> None:
        town = Town(parse_windows(AT_NINE))
        town.run(600.0, *((float(second), 0.0005) for second in range(600)))
        assert town.looks == []


class TestPromotionWindows:
    def test_a_look_is_taken_at_every_opening_and_closing(self) -> None:
        town = Town(parse_windows(AT_NINE))
        town.run(3 * HOUR_S)
        assert town.looks == pytest.approx([1 * HOUR_S, 2 * HOUR_S], abs=0.01)

    def test_a_jump_into_a_window_and_out_of_it_is_seen_within_two_seconds(self) -> None:
        town = Town(parse_windows(AT_NINE))
        town.run(1.5 * HOUR_S, (100.5, 1.5 * HOUR_S), (200.5, -1.5 * HOUR_S))
        assert town.looks == pytest.approx([101.5, 201.5, HOUR_S], abs=1.0)

    def test_after_a_jump_over_a_window_the_next_one_is_waited_for(self) -> None:
        town = Town(parse_windows("0 9,12 * * * PT1H UTC"))
        town.run(2 * HOUR_S, (100.5, 2.5 * HOUR_S))
        assert town.looks == pytest.approx([101.5, 1.5 * HOUR_S], abs=1.0)

    def test_ten_years_are_not_caught_up_with(self) -> None:
        town, began = Town(parse_windows("* * * * * PT1M UTC")), time.monotonic()
        town.run(300.0, (100.5, TEN_YEARS_S))
        assert len(town.looks) <= 300 / 60 + 2
        assert time.monotonic() - began < 10


def test_a_trigger_that_fails_once_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town()
    failed: list[dt.datetime] = []
    given_time = module._Every.get_next_fire_time

    def fails_once(self, previous, now):
        if not failed and len(town.polls) == 3:
            failed.append(now)
            raise ValueError("a fault")
        return given_time(self, previous, now)

    monkeypatch.setattr(module._Every, "get_next_fire_time", fails_once)
    town.run(600.0)
    assert failed
    assert max(gaps(town.polls, until=600.0)) <= LONGEST_S
