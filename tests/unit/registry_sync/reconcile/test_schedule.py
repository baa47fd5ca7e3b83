"""When polls and sweeps begin: one of each at a time, faults survived."""

import asyncio

from registry_sync.reconcile.schedule import Schedule
from tests.fakes.gateway import becomes


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
            self._running -= 1


def schedule(poll: Job, sweep: Job, *, every_s: float = 3600.0) -> Schedule:
    return Schedule(
        poll=poll,
        sweep=sweep,
        poll_interval_s=every_s,
        sweep_interval_s=3600.0,
        jitter=lambda: 0.5,
    )


async def test_the_first_poll_begins_at_once_and_the_first_sweep_does_not() -> None:
    poll, sweep = Job(), Job()
    made = schedule(poll, sweep)
    made.start()
    await becomes(lambda: poll.begun, "it polls")
    assert sweep.begun == 0
    await made.close()
    assert (poll.begun, poll.ended) == (1, 0)


async def test_polls_never_overlap_and_outlive_a_fault() -> None:
    poll, sweep = Job(fails=True), Job()
    made = schedule(poll, sweep, every_s=0.02)
    made.start()
    await becomes(lambda: poll.begun >= 3, "it goes on after a fault")
    poll.fails = False
    begun = poll.begun
    await becomes(lambda: poll.begun > begun, "it polls")
    await becomes(lambda: poll.begun, "it waits")
    poll.go.set()
    await becomes(lambda: poll.ended >= 3, "it goes on")
    await made.close()
    assert poll.most == 1


async def test_what_a_slow_job_was_too_late_for_is_left_out() -> None:
    poll, sweep = Job(), Job()
    made = schedule(poll, sweep, every_s=0.01)
    made.start()
    await becomes(lambda: poll.begun, "it polls")
    loop = asyncio.get_running_loop()
    late = loop.time() + 0.1
    await becomes(lambda: loop.time() > late, "ten intervals have gone by")
    begun = poll.begun
    poll.go.set()
    await becomes(lambda: poll.ended > begun, "the next one comes")
    gone_s = loop.time() - late
    await made.close()
    assert poll.begun - begun <= gone_s / 0.01 + 2, "it does not catch up"
