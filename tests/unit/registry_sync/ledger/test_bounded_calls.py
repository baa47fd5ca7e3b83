"""Calls of a ledger that hangs end at a limit, and few threads are abandoned."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry_sync.errors import LedgerError
from registry_sync.ledger import bounded_calls
from registry_sync.ledger.bounded_calls import BoundedCalls
from registry_sync.ledger.ledger import Ledger
from registry_sync.system.threads import Threads
from tests.fakes.waiting import becomes

LIMIT_S = 1.5


class Bench:
    """A ledger, its bounded calls, and work that blocks until it may go on."""

    def __init__(self, folder: Path) -> None:
        self.threads = Threads()
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", node_id="a", clock=lambda: 1.0)
        self.calls = BoundedCalls(self.ledger, self.threads)
        self.may_go_on = threading.Event()
        self.done = list[str]()

    def block(self, name: str = "blocked") -> str:
        self.may_go_on.wait(30)
        return self.note(name)

    def note(self, name: str) -> str:
        self.done.append(name)
        return name


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(bounded_calls, "_ANSWER_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(bounded_calls, "_SLOW_S", 0.0)
    monkeypatch.setattr(bounded_calls, "_PAUSE_S", 0.0)
    made = Bench(tmp_path)
    yield made
    made.may_go_on.set()
    assert made.threads.close(timeout_s=10)
    made.ledger.close()


async def failure(bench: Bench) -> str:
    with pytest.raises(LedgerError) as error:
        await bench.calls.call(bench.block)
    return error.value.reason


async def test_call_fails_at_the_limit_and_the_next_uses_another_thread(
    bench: Bench,
) -> None:
    await bench.threads.ledger(bench.ledger.ensure)  # made without a limit: that takes long
    assert f"did not answer within {LIMIT_S:g} s" in await failure(bench)
    assert await bench.calls.call(bench.ledger.ensure) is False
    assert await bench.calls.call(bench.ledger.last_listing) is None
    assert bench.threads.abandoned_ledger_threads() == 1
    bench.may_go_on.set()
    await becomes(lambda: not bench.threads.abandoned_ledger_threads(), "no thread is left")
    assert bench.done == ["blocked"]


async def test_calls_fail_at_once_after_some_abandoned_threads(bench: Bench) -> None:
    for number in range(bounded_calls._MOST_ABANDONED):
        assert bench.threads.abandoned_ledger_threads() == number
        await failure(bench)
    assert "threads are still waiting" in await failure(bench)
    assert bench.threads.abandoned_ledger_threads() == bounded_calls._MOST_ABANDONED
    bench.may_go_on.set()
    await becomes(lambda: not bench.threads.abandoned_ledger_threads(), "no thread is left")
    assert await bench.calls.call(bench.note, "well") == "well"


async def test_calls_fail_at_once_for_a_while_after_a_slow_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_calls, "_PAUSE_S", 60.0)
    first, *others = [asyncio.create_task(failure(bench)) for _ in range(20)]
    reason = await first
    assert await asyncio.gather(*others) == [reason] * 19
    assert await failure(bench) == reason
    assert bench.threads.abandoned_ledger_threads() == 1


async def test_a_migration_may_take_longer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "is_migrating", property(lambda _: True))
    monkeypatch.setattr(bounded_calls, "_MIGRATION_LIMIT_S", 30.0)
    asyncio.get_running_loop().call_later(3 * LIMIT_S, bench.may_go_on.set)
    assert await bench.calls.call(bench.block) == "blocked"


async def test_cancelled_call_does_not_begin(bench: Bench) -> None:
    running = asyncio.create_task(bench.calls.call(bench.block, "first"))
    waiting = asyncio.create_task(bench.calls.call(bench.block, "second"))
    await asyncio.sleep(LIMIT_S / 4)
    running.cancel()
    await asyncio.sleep(LIMIT_S / 4)
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    bench.may_go_on.set()
    assert await bench.calls.call(bench.note, "third") == "third"
    assert bench.done == ["first", "third"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_close_takes_bounded_time(
    bench: Bench, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_calls, "_CLOSE_LIMIT_S", LIMIT_S)
    await bench.threads.ledger(bench.ledger.ensure)
    work: Callable[[], str] = bench.block if hangs else lambda: "done"
    waiting = asyncio.create_task(bench.threads.ledger(work))
    await asyncio.sleep(0)
    await bench.calls.close()
    assert bench.threads.abandoned_ledger_threads() == hangs
    with pytest.raises(LedgerError, match="not open"):
        bench.ledger.view()
    bench.may_go_on.set()
    await waiting
