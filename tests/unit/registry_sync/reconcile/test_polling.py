"""A hint at a few models lists each of them, and lets none of its failed steps wait."""

from types import SimpleNamespace
from typing import Any, cast

from registry_sync.reconcile.polling import Polls


async def test_each_model_that_was_hinted_at_is_listed_tried_and_decided_about() -> None:
    done: list[object] = []

    async def look(model: str, asked_by: str) -> None:
        done.append(("listed", model, asked_by))

    context = SimpleNamespace(
        listings=SimpleNamespace(look=look, pointed_anew=set()),
        changes=SimpleNamespace(note=lambda models: done.append(("noted", *models))),
    )
    steps = SimpleNamespace(try_now=lambda model: done.append(("tried", model)))
    polls = Polls(cast("Any", context), cast("Any", None), cast("Any", steps))
    await polls.look(frozenset({"b", "a"}), "webhook")
    each = [[("listed", one, "webhook"), ("tried", one), ("noted", one)] for one in ("a", "b")]
    assert done == [*each[0], *each[1], ("noted",)]
