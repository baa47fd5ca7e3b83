"""A ledger that hangs is waited for within a limit, and its threads are few."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry_sync.errors import LedgerError
from registry_sync.ledger import bounded_calls
from registry_sync.ledger.bounded_calls import Patience
from registry_sync.ledger.ledger import Ledger
from registry_sync.system.threads import Threads
from tests.fakes.gateway import becomes

LIMIT_S = 1.5


class Asked:
    """A ledger, who asks it, and work that stands until it may go on."""

    def __init__(self, folder: Path) -> None:
        self.threads = Threads()
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", node_id="a", clock=lambda: 1.0)
        self.patience = Patience(self.ledger, self.threads)
        self.may_go_on = threading.Event()
        self.done = list[str]()

    def stand(self, name: str = "stood") -> str:
        self.may_go_on.wait(30)
        return self.note(name)

    def note(self, name: str) -> str:
        self.done.append(name)
        return name


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setattr(bounded_calls, "_ANSWER_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(bounded_calls, "_SLOW_S", 0.0)
    monkeypatch.setattr(bounded_calls, "_REST_S", 0.0)
    made = Asked(tmp_path)
    yield made
    made.may_go_on.set()
    assert made.threads.close(patience_s=10)
    made.ledger.close()


async def stands(asked: Asked) -> str:
    with pytest.raises(LedgerError) as error:
        await asked.patience.ask(asked.stand)
    return error.value.reason


async def test_beyond_the_limit_it_is_an_error_and_the_next_one_is_asked_elsewhere(
    asked: Asked,
) -> None:
    await asked.threads.ledger(asked.ledger.ensure)  # made without a limit: that takes long
    assert f"did not answer within {LIMIT_S:g} s" in await stands(asked)
    assert await asked.patience.ask(asked.ledger.ensure) is False
    assert await asked.patience.ask(asked.ledger.last_listing) is None
    assert asked.threads.left_by_ledger() == 1
    asked.may_go_on.set()
    await becomes(lambda: not asked.threads.left_by_ledger(), "no thread is left")
    assert asked.done == ["stood"]


async def test_no_more_threads_are_left_than_a_few(asked: Asked) -> None:
    for number in range(bounded_calls._MOST_LEFT):
        assert asked.threads.left_by_ledger() == number
        await stands(asked)
    assert "threads are still waiting" in await stands(asked)
    assert asked.threads.left_by_ledger() == bounded_calls._MOST_LEFT
    asked.may_go_on.set()
    await becomes(lambda: not asked.threads.left_by_ledger(), "no thread is left")
    assert await asked.patience.ask(asked.note, "well") == "well"


async def test_who_waits_in_line_and_who_comes_soon_is_answered_at_once(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_calls, "_REST_S", 60.0)
    first, *others = [asyncio.create_task(stands(asked)) for _ in range(20)]
    reason = await first
    assert await asyncio.gather(*others) == [reason] * 19
    assert await stands(asked) == reason
    assert asked.threads.left_by_ledger() == 1


async def test_a_migration_may_take_longer(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "is_migrating", property(lambda _: True))
    monkeypatch.setattr(bounded_calls, "_MIGRATION_LIMIT_S", 30.0)
    asyncio.get_running_loop().call_later(3 * LIMIT_S, asked.may_go_on.set)
    assert await asked.patience.ask(asked.stand) == "stood"


async def test_what_nobody_waits_for_any_more_is_not_begun(asked: Asked) -> None:
    running = asyncio.create_task(asked.patience.ask(asked.stand, "first"))
    waiting = asyncio.create_task(asked.patience.ask(asked.stand, "second"))
    await asyncio.sleep(LIMIT_S / 4)
    running.cancel()
    await asyncio.sleep(LIMIT_S / 4)
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    asked.may_go_on.set()
    assert await asked.patience.ask(asked.note, "third") == "third"
    assert asked.done == ["first", "third"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_closing_takes_no_longer_than_a_moment(
    asked: Asked, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_calls, "_CLOSE_LIMIT_S", LIMIT_S)
    await asked.threads.ledger(asked.ledger.ensure)
    work: Callable[[], str] = asked.stand if hangs else lambda: "done"
    waiting = asyncio.create_task(asked.threads.ledger(work))
    await asyncio.sleep(0)
    await asked.patience.close()
    assert asked.threads.left_by_ledger() == hangs
    with pytest.raises(LedgerError, match="not open"):
        asked.ledger.view()
    asked.may_go_on.set()
    await waiting
