"""Hints: looked at soon, one look at a time, however many come."""

import asyncio

import pytest

from registry_sync.reconcile.registry.hints import Hints
from tests.fakes.waiting import becomes


class Look:
    """Records what is looked at; each look waits for the test."""

    def __init__(self) -> None:
        self.looked: list[tuple[frozenset[str] | None, str]] = []
        self.running = self.most = 0
        self.fails = False
        self.go = asyncio.Event()

    async def __call__(self, models: frozenset[str] | None, asked_by: str) -> None:
        self.looked.append((models, asked_by))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
            if self.fails:
                raise ValueError("a fault")
        finally:
            self.running -= 1


async def test_hints_during_a_look_make_one_more_after_it() -> None:
    look = Look()
    hints = Hints(look)
    hints.add("a", "webhook")
    await becomes(lambda: look.looked, "it looks")
    for _ in range(10_000):
        hints.add("b", "webhook")
        hints.add("c", "operator")
    look.go.set()
    await becomes(lambda: len(look.looked) == 2, "it looks again")
    await becomes(lambda: hints._looking is None, "that was all")
    assert look.looked == [(frozenset("a"), "webhook"), (frozenset("bc"), "operator")]
    assert look.most == 1


async def test_a_hint_in_the_turn_in_which_the_last_look_ends_is_not_lost() -> None:
    looked: list[frozenset[str] | None] = []

    async def look(models: frozenset[str] | None, _: str) -> None:
        looked.append(models)

    hints = Hints(look)
    for turn in range(50):
        hints.add("first", "webhook")
        for _ in range(turn % 7):
            await asyncio.sleep(0)

        def looked_again(before: int = len(looked)) -> bool:
            return len(looked) > before

        hints.add("second", "webhook")
        await becomes(looked_again, "the second one is looked at")
        await becomes(lambda: hints._looking is None, "it is over")
        assert looked[-1] is not None
        assert "second" in looked[-1]


async def test_many_models_count_as_everything() -> None:
    look = Look()
    hints = Hints(look)
    hints.add("first", "webhook")
    await becomes(lambda: look.looked, "it looks")
    for number in range(1000):
        hints.add(f"model-{number}", "webhook")
    assert len(hints._models) == 0
    look.go.set()
    await becomes(lambda: len(look.looked) == 2, "it looks again")
    assert look.looked[1] == (None, "webhook")
    await hints.close()


@pytest.mark.parametrize(("count", "everything"), [(100, False), (101, True)])
async def test_as_many_models_as_may_be_are_looked_at_each(count: int, everything: bool) -> None:
    look = Look()
    look.go.set()
    hints = Hints(look)
    models = frozenset(f"model-{number}" for number in range(count))
    for model in models:
        hints.add(model, "webhook")
    await becomes(lambda: look.looked, "it looks")
    assert look.looked == [(None if everything else models, "webhook")]
    await hints.close()


async def test_a_fault_ends_no_more_than_its_look() -> None:
    look = Look()
    look.fails = True
    look.go.set()
    hints = Hints(look)
    hints.add("a", "webhook")
    await becomes(lambda: hints._looking is None, "it failed")
    hints.add(None, "operator")
    await becomes(lambda: len(look.looked) == 2, "it looks again")
    await becomes(lambda: hints._looking is None, "it failed again")


async def test_closing_ends_the_look_and_takes_no_more() -> None:
    look = Look()
    hints = Hints(look)
    hints.add("a", "webhook")
    await becomes(lambda: look.running == 1, "it looks")
    await hints.close()
    hints.add("b", "webhook")
    await asyncio.sleep(0)
    assert (len(look.looked), look.running) == (1, 0)
