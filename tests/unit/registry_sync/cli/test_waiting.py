"""What has come of a decision, judged by what the control plane explains."""

from typing import Any

import pytest

from registry_sync.cli import waiting
from registry_sync.domain.operation_bodies import (
    ExplainAnswer,
    HoldState,
    PinAnswer,
    QuarantineAnswer,
    RetryAnswer,
    SelectorState,
)

MADE = HoldState(version=3, pinned=True, while_aspired=None, asked_by="operator", at=5.0)
LATER = MADE.model_copy(update={"at": 6.0, "version": 2})


def alias(why: str, **known: Any) -> SelectorState:
    return SelectorState(selector="@champion", version=1, why=why, reason=f"it is {why}", **known)


def number(why: str, **known: Any) -> SelectorState:
    return SelectorState(selector="3", version=3, why=why, reason=f"it is {why}", **known)


def found(*selectors: SelectorState, **known: Any) -> ExplainAnswer:
    nothing: dict[str, Any] = dict.fromkeys(
        ("listed_at", "source_error", "gateway_error", "ledger_error", "frozen")
    )
    return ExplainAnswer(
        **(nothing | {"model": "m", "versions": [], "attempts": []} | known), selectors=[*selectors]
    )


@pytest.mark.parametrize(
    ("explained", "outcome", "final", "reason"),
    [
        (found(alias("pinned", hold=MADE)), "active", True, None),
        (found(alias("pinned", hold=MADE), doing=["list"]), "active", True, None),
        (found(alias("pinned", hold=MADE), doing=["move"]), "active", False, None),
        (found(alias("under_way", hold=MADE)), "pending", False, "it is under_way"),
        (found(alias("failing", hold=MADE, failure="full")), "pending", False, "full"),
        (found(alias("rejected", hold=MADE)), "refused", True, "it is rejected"),
        (
            found(alias("follows")),
            "refused",
            True,
            "the hold was ended meanwhile: the alias follows the registry again",
        ),
        (
            found(alias("under_way", hold=LATER)),
            "refused",
            True,
            "another decision has replaced this one: the alias is pinned at version 2 by operator",
        ),
    ],
)
def test_what_becomes_of_a_hold(
    explained: ExplainAnswer, outcome: str, final: bool, reason: str | None
) -> None:
    made = [alias("under_way", hold=MADE)]
    answer = PinAnswer(
        model="m", alias="champion", from_version=1, to_version=3, pinned=True, explained=made
    )
    ending = waiting.of_hold(answer)(explained)
    assert (ending.outcome, ending.final, ending.reason) == (outcome, final, reason)


@pytest.mark.parametrize(
    ("explained", "outcome", "final"),
    [
        (found(number("quarantined", doing=["fetch"])), "pending", False),
        (found(number("quarantined"), doing=["decide"]), "pending", False),
        (found(number("available")), "accepted", True),
        (found(number("quarantined")), "refused", True),
        (found(number("failed", failure="no answer")), "pending", True),
    ],
)
def test_what_becomes_of_bytes(explained: ExplainAnswer, outcome: str, final: bool) -> None:
    ending = waiting.of_bytes(explained)
    assert (ending.outcome, ending.final) == (outcome, final)


def test_an_acceptance_that_found_nothing_out_is_to_be_asked_for_again() -> None:
    judge = waiting.of_acceptance(QuarantineAnswer(model="m", version=3, explained=[]))
    failed = judge(found(number("quarantined", failure="no answer")))
    assert failed.reason is not None
    assert failed.reason.startswith("no answer; nothing has changed: run `registry-gateway")
    wrong = judge(found(number("quarantined", failure="it is quarantined")))
    assert wrong.reason == "it is quarantined"


@pytest.mark.parametrize(
    ("whys", "outcome", "final"),
    [
        ([], "ended", True),
        (["follows"], "active", True),
        (["follows", "frozen"], "ended", True),
        (["follows", "failing"], "pending", True),
        (["rejected", "under_way"], "refused", False),
    ],
)
def test_what_becomes_of_a_retry(whys: list[str], outcome: str, final: bool) -> None:
    judge = waiting.of_retry(RetryAnswer(model="m", version=3, explained=[]))
    elsewhere = alias("rejected", aspired=2)
    ending = judge(found(elsewhere, *(alias(why, aspired=3) for why in whys)))
    assert (ending.outcome, ending.final) == (outcome, final)


@pytest.mark.parametrize(
    ("explained", "outcome", "final"),
    [
        (found(alias("follows"), doing=["list"]), "pending", False),
        (found(alias("follows")), "done", True),
        (found(alias("follows"), source_error="down"), "refused", True),
        (found(alias("rejected")), "refused", True),
        (found(alias("under_way", target=2)), "pending", False),
        (found(alias("under_way", target=2, failure="full")), "pending", True),
        (found(alias("under_way", target=2), gateway_error="gone"), "pending", True),
        (found(alias("follows"), doing=["decide"]), "done", False),
    ],
)
def test_what_becomes_of_a_look(explained: ExplainAnswer, outcome: str, final: bool) -> None:
    ending = waiting.of_sync(explained)
    assert (ending.outcome, ending.final) == (outcome, final)
