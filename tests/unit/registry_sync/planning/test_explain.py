"""Why an alias is where it is, as the plan decides it."""

from collections.abc import Hashable
from dataclasses import replace

import pytest

from gateway.contract import AliasRef
from registry_sync.planning.actions import Failure
from registry_sync.planning.explain import explain, why_unable
from registry_sync.planning.plan import plan
from registry_sync.planning.snapshot import Cause
from tests.fakes.snapshots import A, D, M, given


@pytest.mark.parametrize(
    ("snapshot", "why", "reason"),
    [
        ("champion@1, active 1, here 1", "follows", "where the registry"),
        ("champion@2, active 1, here 1", "under_way", "to be fetched"),
        ("champion@2, active 1, here 1 2", "under_way", "loaded and"),
        ("champion@2, active 1, here 1 2, standby 2", "under_way", "about to be activated"),
        ("champion@1, active 1, here 1, stamped 1 digest=9", "under_way", "to be fetched"),
        ("champion@2, active 1, quarantined 2", "quarantined", "wrong bytes"),
        ("champion@2, active 1, here 1 2, rejected 2", "rejected", "tried again when"),
        ("champion@2, active 1, require_digest", "unstamped", "registry-gateway stamp models:/m/2"),
        ("champion@2, active 1, here 1 2, held 1 at=2", "held", "another version than 2"),
        (
            "champion@2, active 1, here 1 2, held 1 at=2 by=gateway, rejected 2 live",
            "held",
            "another version than 2; it failed",
        ),
        ("champion@3, active 1, here 1, pinned 1 at=2", "pinned", "until `unpin`"),
        (
            "champion@3, active 2, here 1, pinned 1 at=2",
            "under_way",
            "until `unpin`; version 1 is here",
        ),
        ("champion@2, active 1, here 1 2, frozen", "frozen", "until `unfreeze`"),
        ("active 1, here 1, frozen", "frozen", "no longer has it"),
        (
            "champion@2, active 1, here 1 2, closed",
            "awaits_window",
            "waits for the promotion window that opens at 2026-11-25T09:00:00Z",
        ),
        ("champion@2, active 1, here 1, closed", "under_way", "to be fetched"),
        (
            "champion@2, active 1, here 1 2, tag environment=own, closed",
            "under_way",
            "version 2 is here",
        ),
        ("champion@1, here 1, closed", "under_way", "loaded and warmed"),
        ("champion@2, active 1, here 1 2, frozen, closed", "frozen", "until `unfreeze`"),
        ("champion@1, here 1, last 1, frozen", "under_way", "loaded and warmed"),
        ("active 1, here 1", "under_way", "two listings"),
        ("champion@1, tag load=on_demand", "on_demand", "is fetched when it is called"),
        ("champion@1, wanted 1, tag load=on_demand", "under_way", "to be fetched"),
        (
            "champion@1, here 1, tag load=on_demand environment=own",
            "on_demand",
            "has its environment built when",
        ),
        ("champion@2, here 1, tag load=on_demand, last 1", "under_way", "to be fetched"),
        ("unlisted, active 1, listings 0", "gone", "not been listed"),
        ("", "unknown", "neither"),
        ("champion@9, active 1", "unfollowed", "version 9"),
    ],
)
def test_explanation_agrees_with_the_plan(snapshot: str, why: str, reason: str) -> None:
    what_is = given(snapshot)
    found = explain(what_is, M, A, next(iter(what_is.node.active), None))
    assert found.why == why
    assert reason in found.reason
    moves = [one for one in plan(what_is) if getattr(one, "version", None)]
    assert bool(moves) <= (why in ("under_way", "frozen"))


@pytest.mark.parametrize(
    ("here", "subject", "goal", "reason"),
    [
        ("1", ("fetch", M, 2), None, "could not be fetched, and that is tried again: why"),
        ("1", ("fetch", M, 2), "another creation", None),
        ("1 2", ("fetch", M, 2), None, None),
        ("1 2", ("environment", M, 2, D[2]), None, "has no environment yet"),
        ("1 2", ("stage", M, 2, D[2]), None, "could not be loaded"),
        ("1 2", ("stage", M, 2, D[3]), None, None),
        ("1 2", ("activate", M, A), (2, D[2]), "could not be activated"),
        ("1 2", ("activate", M, A), (3, D[3]), None),
    ],
)
@pytest.mark.parametrize("target", ["champion@2", "champion@3, held 2 at=3"])
def test_failed_step_is_the_explanation(
    here: str, subject: tuple[str | int, ...], goal: Hashable, reason: str | None, target: str
) -> None:
    what_is = given(f"{target}, active 1, here 1 2, stored {here}")
    failure = Failure(1, "why", 0.0, 1.0, goal)
    what_is = replace(what_is, failure=lambda found: failure if found == subject else None)
    found = explain(what_is, M, A, what_is.node.active[0])
    assert found.why == ("failing" if reason else "under_way")
    assert (reason or "") in found.reason


@pytest.mark.parametrize(
    ("snapshot", "why"),
    [
        ("champion@2, active 2, here 2, held 1 at=2, quarantined 1", Cause.QUARANTINED),
        ("champion@2, active 2, here 1 2, held 1 at=2, quarantined 1 expected=1", None),
    ],
)
def test_held_version_is_unable_to_serve_wrong_bytes_unless_its_own_are_here(
    snapshot: str, why: Cause | None
) -> None:
    what_is = given(snapshot)
    unable = why_unable(what_is, what_is.ledger.holds[AliasRef(M, A)])
    assert (unable and unable[0]) == why
