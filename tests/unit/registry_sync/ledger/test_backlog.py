"""The backlog records each decision once, and a restart finds it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway.contract import AliasRef
from registry_sync.domain import Activation, HoldChange, HoldsSnapshot, LedgerView
from registry_sync.errors import LedgerError
from registry_sync.ledger import backlog
from registry_sync.ledger.backlog import Backlog
from registry_sync.ledger.bounded_calls import BoundedCalls
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.system.threads import Threads

DIGEST = "sha256:" + "a" * 64
FREEZE = HoldChange("freeze", "operator", 1.0)
UNFREEZE = HoldChange("unfreeze", "operator", 2.0)
UNREADABLE = "it cannot be read now: Too many open files"


def move(number: int, model: str = "m") -> Activation:
    return Activation(model, "champion", number, DIGEST, None, None, "poll", float(number), number)


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class FakeFile:
    """The holds file in memory; ``takes_s`` is the duration of a write."""

    name = "holds.json"

    def __init__(self, clock: Clock, content: HoldsSnapshot) -> None:
        self.content = content
        self.readable = True
        self.written = 0
        self.takes_s = 0.0
        self._clock = clock

    def read(self) -> HoldsSnapshot:
        if not self.readable:
            raise LedgerError(UNREADABLE)
        return self.content

    def keep(self, changes: Sequence[HoldChange], activations: Sequence[Activation]) -> None:
        self.written += 1
        self._clock.now_s += self.takes_s
        self.content = replace(self.read(), changes=tuple(changes), activations=tuple(activations))


class FakeLedger:
    """The ledger and its calls, behind a gate; ``refuses`` makes it fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()
        self.refuses = False
        self.changes: list[tuple[HoldChange, bool]] = []
        self.moves: list[Activation] = []

    async def call(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.called.set()
        await self.gate.wait()
        if self.refuses:
            raise LedgerError("it refuses writes")
        return work(*args, **options)

    def record(self, change: HoldChange, *, late: bool) -> None:
        self.changes.append((change, late))

    def activated_late(self, moves: Sequence[Activation]) -> None:
        self.moves += moves


class FakeThreads:
    """The ledger's thread, without a thread."""

    async def ledger(self, work: Callable[[], Any]) -> Any:
        return work()


class Bench:
    """A backlog with its fakes; the file holds the changes of an earlier process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *earlier: HoldChange) -> None:
        self.clock, self.ledger = Clock(), FakeLedger()
        self.file = FakeFile(self.clock, HoldsSnapshot(changes=earlier))
        monkeypatch.setattr(backlog, "time", self.clock)
        self.backlog = Backlog(
            cast("Ledger", self.ledger),
            cast("BoundedCalls", self.ledger),
            cast("Threads", FakeThreads()),
            cast("HoldsFile", self.file),
            on_recorded=lambda _: None,
        )

    def kept(self) -> list[HoldChange]:
        """Return the decisions that a restart finds."""
        return list(self.file.content.changes)


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_record_includes_decisions_recalled_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Bench(monkeypatch, FREEZE)
    one.file.readable = False
    one.backlog.decided(UNFREEZE)
    one.ledger.gate.clear()
    recording = asyncio.create_task(one.backlog.record())
    await one.ledger.called.wait()
    one.file.readable = True
    await one.backlog.recall()
    one.ledger.gate.set()
    await recording
    await one.backlog.keep()
    assert one.ledger.changes == [(UNFREEZE, False), (FREEZE, True)]
    assert one.backlog.summary() is None
    assert one.file.content == HoldsSnapshot()


async def test_equal_decisions_are_both_recorded(one: Bench) -> None:
    for decision in (FREEZE, replace(FREEZE)):
        one.backlog.decided(decision)
    await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, False), (FREEZE, False)]


async def test_decision_is_late_after_a_failed_attempt(one: Bench) -> None:
    one.backlog.decided(FREEZE)
    one.ledger.refuses = True
    with pytest.raises(LedgerError):
        await one.backlog.record()
    one.backlog.decided(UNFREEZE)
    one.ledger.refuses = False
    await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, True), (UNFREEZE, False)]


async def test_keep_does_not_overwrite_an_unread_file(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Bench(monkeypatch, FREEZE)
    one.file.readable = False
    one.backlog.decided(UNFREEZE)
    with pytest.raises(LedgerError, match="cannot be read now"):
        await one.backlog.recall()
    await one.backlog.keep()
    assert one.kept() == [FREEZE]
    assert "waits in memory" in str(one.backlog.summary())
    assert UNREADABLE in str(one.backlog.summary())
    one.file.readable = True
    assert await one.backlog.recall()
    assert not await one.backlog.recall(), "once"
    await one.backlog.keep()
    assert one.kept() == [FREEZE, UNFREEZE]
    assert "waits in holds.json" in str(one.backlog.summary())


async def test_record_takes_all_decisions_and_some_moves(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_MOVES_AT_ONCE", 2)
    for number in range(5):
        one.backlog.moved(move(number))
    one.backlog.decided(FREEZE)
    assert await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, False)]
    assert [moved.version for moved in one.ledger.moves] == [0, 1]
    assert await one.backlog.record()
    assert not await one.backlog.record()
    assert [moved.version for moved in one.ledger.moves] == [0, 1, 2, 3, 4]
    assert one.backlog.summary() is None


async def test_decision_made_while_moves_are_recorded_is_not_late(one: Bench) -> None:
    one.backlog.moved(move(1))
    one.ledger.gate.clear()
    recording = asyncio.create_task(one.backlog.record())
    await one.ledger.called.wait()
    one.backlog.decided(FREEZE)
    one.ledger.gate.set()
    await recording
    await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, False)]


async def test_refused_moves_stay_in_the_backlog(one: Bench) -> None:
    one.backlog.moved(move(1))
    one.ledger.refuses = True
    with pytest.raises(LedgerError):
        await one.backlog.record()
    assert str(one.backlog.summary()).startswith("the ledger has not recorded 1 move: ")


async def test_oldest_of_too_many_moves_are_dropped_and_counted(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_MOST_ACTIVATIONS", 3)
    for number in range(3):
        one.backlog.moved(move(number))
    assert "dropped" not in str(one.backlog.summary())
    for number in (3, 4):
        one.backlog.moved(move(number))
    assert str(one.backlog.summary()).startswith("the ledger has not recorded 3 moves: ")
    assert str(one.backlog.summary()).endswith("; 2 earlier moves were dropped")
    await one.backlog.record()
    assert [moved.version for moved in one.ledger.moves] == [2, 3, 4]
    one.backlog.moved(move(5))
    assert "dropped" not in str(one.backlog.summary())


def test_apply_uses_the_newest_move_of_each_alias(one: Bench) -> None:
    for number in range(4):
        one.backlog.moved(move(number, f"m{number % 2}"))
    view = one.backlog.apply(LedgerView(last_active={AliasRef("m", "champion"): move(9)}))
    found = {model: moved.version for (model, _), moved in view.last_active.items()}
    assert found == {"m": 9, "m0": 2, "m1": 3}
    assert one.backlog.apply(LedgerView(), "m1").last_active == {("m1", "champion"): move(3, "m1")}
    one.backlog.moved(move(5, "m1"))
    assert one.backlog.apply(LedgerView(), "m1").last_active == {("m1", "champion"): move(5, "m1")}


async def test_slow_file_is_written_less_often(one: Bench) -> None:
    await one.backlog.recall()
    one.file.takes_s = 0.5
    for number in range(100):
        one.backlog.moved(move(number))
        await one.backlog.keep()
        one.clock.now_s += 0.1
    assert one.file.written == 1
    one.backlog.decided(FREEZE)
    await one.backlog.keep()
    assert one.file.written == 2, "a decision waits for nothing"
    assert len(one.file.content.activations) == 100
    one.backlog.moved(move(100))
    one.clock.now_s += 10.0
    await one.backlog.keep()
    assert len(one.file.content.activations) == 101
    await one.backlog.record()
    await one.backlog.keep()
    assert one.file.content == HoldsSnapshot()
