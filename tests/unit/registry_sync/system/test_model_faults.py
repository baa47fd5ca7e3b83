"""A fault of ours in the work for one model costs that model, and is logged once."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from registry_sync.reconcile import reconciler
from registry_sync.reconcile.view import description, snapshots
from registry_sync.system.model_faults import ModelFaults
from tests.fakes.nodes import A, NodeInMemory, idle
from tests.fakes.waiting import becomes

NAMES = ("m0", "m1", "m2")
PASSES = 3


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    made = NodeInMemory(tmp_path)
    for name in NAMES:
        for version in (1, 2):
            made.registry.publish(name, version)
        made.registry.without_latest(name)
        made.registry.point(name, A, 1)
    return made


@pytest.mark.parametrize(
    ("part", "owner", "name"),
    [
        ("plan", snapshots.Snapshots, "of"),
        ("description", description.Descriptions, "_describe"),
        ("recording", reconciler.Reconciler, "_record_model"),
    ],
)
async def test_the_other_models_are_followed_and_this_one_again_later(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch, part: str, owner: type, name: str
) -> None:
    async with node.control_plane() as spine:
        await becomes(lambda: len(node.gateway.active) == len(NAMES), "all are active")
        await idle(spine)
        whole = getattr(owner, name)

        def faulty(self: object, model: str, *rest: Any) -> Any:
            if model == "m0":
                raise ValueError("a fault of ours")
            return whole(self, model, *rest)

        with monkeypatch.context() as broken, capture_logs() as logs:
            broken.setattr(owner, name, faulty)
            for model in ("m0", "m2"):
                node.registry.point(model, A, 2)
                await spine.poll()
            await becomes(lambda: node.gateway.points("m2", A) == 2, "another one is promoted")
            for _ in range(PASSES):
                spine.wake()
                await spine.next_decision()
        told = [one["model"] for one in logs if one["event"] == f"{part}.failed"]
        assert told == ["m0"]
        assert not any(one["event"] == "reconciliation.failed" for one in logs)
        spine.wake()
        await becomes(lambda: node.gateway.points("m0", A) == 2, "it is followed again")
        await idle(spine)


def test_a_reason_is_logged_again_once_it_was_over_or_is_another_one() -> None:
    faults = ModelFaults()

    def fail(reason: str) -> None:
        with faults.isolate("m", "plan"):
            raise ValueError(reason)

    with capture_logs() as logs:
        for reason in ("one", "one", "two"):
            fail(reason)
        with faults.isolate("m", "plan"):
            pass
        fail("two")
        faults.keep_only({"other"})
        fail("two")
    assert len(logs) == 4
