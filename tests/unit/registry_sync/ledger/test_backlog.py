"""What waits for the ledger is recorded once, and kept where a restart finds it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from registry_sync.domain.records import Activation, LedgerView, Standing, StandingChange
from registry_sync.errors import LedgerError
from registry_sync.ledger import backlog
from registry_sync.ledger.backlog import Backlog
from registry_sync.ledger.bounded_calls import Patience
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.system.threads import Threads

DIGEST = "sha256:" + "a" * 64
FREEZE = StandingChange("freeze", "operator", 1.0)
UNFREEZE = StandingChange("unfreeze", "operator", 2.0)
UNREADABLE = "it cannot be read now: Too many open files"


def move(number: int, model: str = "m") -> Activation:
    return Activation(model, "champion", number, DIGEST, None, None, "poll", float(number), number)


class Clock:
    """The monotonic clock, which a test puts forward."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class File:
    """The node's file in memory; ``takes_s`` is how long a write takes, by a test's clock."""

    name = "holds.json"

    def __init__(self, clock: Clock, standing: Standing) -> None:
        self.standing = standing
        self.readable = True
        self.written = 0
        self.takes_s = 0.0
        self._clock = clock

    def read(self) -> Standing:
        if not self.readable:
            raise LedgerError(UNREADABLE)
        return self.standing

    def keep(self, changes: Sequence[StandingChange], activations: Sequence[Activation]) -> None:
        self.written += 1
        self._clock.now_s += self.takes_s
        self.standing = replace(self.read(), changes=tuple(changes), activations=tuple(activations))


class TakesWhenTold:
    """The ledger, behind a gate; ``refuses`` has it take nothing."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.refuses = False
        self.changes: list[tuple[StandingChange, bool]] = []
        self.moves: list[Activation] = []

    async def ask(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.asked.set()
        await self.gate.wait()
        if self.refuses:
            raise LedgerError("it takes nothing")
        return work(*args, **options)

    def record(self, change: StandingChange, *, late: bool) -> None:
        self.changes.append((change, late))

    def activated_late(self, moves: Sequence[Activation]) -> None:
        self.moves += moves


class AtOnce:
    """The ledger's thread; nothing in memory has to be waited for."""

    async def ledger(self, work: Callable[[], Any]) -> Any:
        return work()


class Waiting:
    """A backlog and what it is made of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *left: StandingChange) -> None:
        self.clock, self.ledger = Clock(), TakesWhenTold()
        self.file = File(self.clock, Standing(changes=left))
        monkeypatch.setattr(backlog, "time", self.clock)
        self.backlog = Backlog(
            cast("Ledger", self.ledger),
            cast("Patience", self.ledger),
            cast("Threads", AtOnce()),
            cast("HoldsFile", self.file),
            on_recorded=lambda _: None,
        )

    def kept(self) -> list[StandingChange]:
        """The decisions that a restart finds."""
        return list(self.file.standing.changes)


async def test_what_comes_in_while_another_is_recorded_is_recorded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Waiting(monkeypatch, FREEZE)
    one.file.readable = False
    one.backlog.decided(UNFREEZE)
    one.ledger.gate.clear()
    recording = asyncio.create_task(one.backlog.record())
    await one.ledger.asked.wait()
    one.file.readable = True
    await one.backlog.recall()
    one.ledger.gate.set()
    await recording
    await one.backlog.keep()
    assert one.ledger.changes == [(UNFREEZE, False), (FREEZE, True)]
    assert one.backlog.told() is None
    assert one.file.standing == Standing()


async def test_two_decisions_that_are_alike_are_both_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Waiting(monkeypatch)
    for decision in (FREEZE, replace(FREEZE)):
        one.backlog.decided(decision)
    await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, False), (FREEZE, False)]


async def test_what_was_tried_before_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Waiting(monkeypatch)
    one.backlog.decided(FREEZE)
    one.ledger.refuses = True
    with pytest.raises(LedgerError):
        await one.backlog.record()
    one.backlog.decided(UNFREEZE)
    one.ledger.refuses = False
    await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, True), (UNFREEZE, False)]


async def test_nothing_takes_the_place_of_what_an_earlier_process_left_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Waiting(monkeypatch, FREEZE)
    one.file.readable = False
    one.backlog.decided(UNFREEZE)
    with pytest.raises(LedgerError, match="cannot be read now"):
        await one.backlog.recall()
    await one.backlog.keep()
    assert one.kept() == [FREEZE]
    assert "waits in memory" in str(one.backlog.told())
    assert UNREADABLE in str(one.backlog.told())
    one.file.readable = True
    assert await one.backlog.recall()
    assert not await one.backlog.recall(), "once"
    await one.backlog.keep()
    assert one.kept() == [FREEZE, UNFREEZE]
    assert "waits in holds.json" in str(one.backlog.told())


async def test_a_pass_waits_for_some_of_many_moves_and_for_every_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "_MOVES_AT_ONCE", 2)
    one = Waiting(monkeypatch)
    for number in range(5):
        one.backlog.moved(move(number))
    one.backlog.decided(FREEZE)
    assert await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, False)]
    assert [moved.version for moved in one.ledger.moves] == [0, 1]
    assert await one.backlog.record()
    assert not await one.backlog.record()
    assert [moved.version for moved in one.ledger.moves] == [0, 1, 2, 3, 4]
    assert one.backlog.told() is None


async def test_a_decision_that_is_made_while_moves_are_recorded_is_not_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Waiting(monkeypatch)
    one.backlog.moved(move(1))
    one.ledger.gate.clear()
    recording = asyncio.create_task(one.backlog.record())
    await one.ledger.asked.wait()
    one.backlog.decided(FREEZE)
    one.ledger.gate.set()
    await recording
    await one.backlog.record()
    assert one.ledger.changes == [(FREEZE, False)]


async def test_moves_that_the_ledger_refuses_go_on_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Waiting(monkeypatch)
    one.backlog.moved(move(1))
    one.ledger.refuses = True
    with pytest.raises(LedgerError):
        await one.backlog.record()
    assert str(one.backlog.told()).startswith("the ledger has not recorded 1 move: ")


async def test_of_too_many_moves_the_oldest_are_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "_MOST_ACTIVATIONS", 3)
    one = Waiting(monkeypatch)
    for number in range(3):
        one.backlog.moved(move(number))
    assert "left out" not in str(one.backlog.told())
    for number in (3, 4):
        one.backlog.moved(move(number))
    assert str(one.backlog.told()).startswith("the ledger has not recorded 3 moves: ")
    assert str(one.backlog.told()).endswith("; of earlier moves, 2 are left out")
    await one.backlog.record()
    assert [moved.version for moved in one.ledger.moves] == [2, 3, 4]
    one.backlog.moved(move(5))
    assert "left out" not in str(one.backlog.told())


def test_the_newest_move_of_each_alias_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Waiting(monkeypatch)
    for number in range(4):
        one.backlog.moved(move(number, f"m{number % 2}"))
    view = one.backlog.on(LedgerView(last_active={("m", "champion"): move(9)}))
    found = {model: moved.version for (model, _), moved in view.last_active.items()}
    assert found == {"m": 9, "m0": 2, "m1": 3}
    assert one.backlog.on(LedgerView(), "m1").last_active == {("m1", "champion"): move(3, "m1")}
    one.backlog.moved(move(5, "m1"))
    assert one.backlog.on(LedgerView(), "m1").last_active == {("m1", "champion"): move(5, "m1")}


async def test_a_file_that_takes_long_is_written_for_a_part_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Waiting(monkeypatch)
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
    assert len(one.file.standing.activations) == 100
    one.backlog.moved(move(100))
    one.clock.now_s += 10.0
    await one.backlog.keep()
    assert len(one.file.standing.activations) == 101
    await one.backlog.record()
    await one.backlog.keep()
    assert one.file.standing == Standing(), "nor does the end of it"


def test_looking_at_what_waits_goes_through_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Waiting(monkeypatch)
    for number in range(100):
        one.backlog.moved(move(number, f"m{number}"))
    newest, times = backlog._newest, []

    def count(moves: Sequence[Activation]) -> Any:
        times.append(len(moves))
        return newest(moves)

    monkeypatch.setattr(backlog, "_newest", count)
    for number in range(100):
        assert one.backlog.on(LedgerView(), f"m{number}").last_active
    assert times == [100]
