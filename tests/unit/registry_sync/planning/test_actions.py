"""What an action is about, and what a failure of it is a failure of."""

import pytest

from registry_sync.domain import Hold
from registry_sync.planning.actions import (
    Action,
    Activate,
    AllowDigest,
    BuildEnvironment,
    EndHold,
    Fetch,
    RetireAlias,
    RetireStandby,
    Stage,
    Urgency,
    goal_of,
    subject_of,
    verb_of,
)

HELD = Hold("m", "a", 2, 1, "d", "operator", 1.0)
PROMOTION = Urgency.PROMOTION


@pytest.mark.parametrize(
    ("action", "subject", "goal"),
    [
        (Fetch("m", 1, PROMOTION, creation="c"), ("fetch", "m", 1), "c"),
        (BuildEnvironment("m", 1, "d", PROMOTION), ("environment", "m", 1, "d"), None),
        (
            Stage("m", "a", 1, "d", keep=True, replaces=None, urgency=PROMOTION, asked_by="poll"),
            ("stage", "m", 1, "d"),
            None,
        ),
        (Activate("m", "a", 1, "d", "s", PROMOTION, "poll"), ("activate", "m", "a"), (1, "d")),
        (RetireAlias("m", "a"), ("retire", "m", "a"), None),
        (RetireStandby("m", 1, "s"), ("retire_standby", "m", "s"), None),
        (EndHold(HELD), ("end_hold", "m", "a"), HELD),
        (AllowDigest("m", "a", 1, "d"), ("allow_digest", "m", "a", "d"), None),
    ],
)
def test_an_action_has_a_subject_and_a_goal(
    action: Action, subject: tuple[str | int, ...], goal: object
) -> None:
    assert subject_of(action) == subject
    assert goal_of(action) == goal
    assert verb_of(action) == subject[0]
