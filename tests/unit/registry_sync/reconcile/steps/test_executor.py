"""Only a comparison, or a fetch of a creation that is gone, is overtaken."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry_sync.domain import Initiator
from registry_sync.planning.actions import Action, Activate, Fetch, Stage, Urgency
from registry_sync.reconcile.steps.executor import Executor
from tests.fakes.nodes import A, M

FIRST, SECOND = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def executor(*, comparing: bool) -> Executor:
    parts: dict[str, Any] = dict.fromkeys(("context", "fetch_step", "environment_step", "copies"))
    promotion = SimpleNamespace(is_comparing=lambda _: comparing)
    return Executor(**parts, promotion=cast("Any", promotion))


def activation(version: int, digest: str = FIRST) -> Activate:
    return Activate(M, A, version, digest, "stage", Urgency.PROMOTION, Initiator.POLL)


def fetch(creation: str | None) -> Fetch:
    return Fetch(M, 1, Urgency.PREFETCH, creation=creation)


STAGE = Stage(M, A, 1, FIRST, True, None, Urgency.PROMOTION, Initiator.POLL)


@pytest.mark.parametrize(
    ("doing", "action", "expected"),
    [
        (activation(1), activation(2), True),
        (activation(1), activation(1, SECOND), True),
        (activation(1), activation(1), False),
        (STAGE, activation(2), False),
        (activation(2), STAGE, False),
        (fetch("old"), fetch("new"), True),
        (fetch(None), fetch("new"), True),
        (fetch("old"), fetch("old"), False),
        (fetch("old"), fetch(None), False),
    ],
)
def test_what_nobody_wants_any_more_is_overtaken(
    doing: Action, action: Action, expected: bool
) -> None:
    assert executor(comparing=True).may_overtake(doing, action) is expected


def test_an_activation_that_has_asked_the_gateway_is_not_overtaken() -> None:
    assert not executor(comparing=False).may_overtake(activation(1), activation(2))
