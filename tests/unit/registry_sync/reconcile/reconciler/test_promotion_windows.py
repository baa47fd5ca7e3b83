"""What waits for a promotion window, what does not, and windows that close in the middle."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.contract.catalogue import VersionState
from registry_sync.domain.promotion_windows import parse_windows
from registry_sync.planning.explain import Explanation, explain
from registry_sync.planning.snapshot import Cause
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.waiting import becomes

HOUR_S = 3600.0


class WallClock:
    """A clock of tomorrow, which goes on, and is set by the test."""

    def __init__(self) -> None:
        self._midnight = (datetime.now(UTC) + timedelta(days=1)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        self.show(8)

    def __call__(self) -> float:
        return time.time() + self._ahead_s

    def show(self, hour: float) -> None:
        self._ahead_s = self.at(hour) - time.time()

    def at(self, hour: float) -> float:
        return self._midnight.timestamp() + hour * HOUR_S


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    """A node that promotes from nine to ten, at eight."""
    made = NodeInMemory.with_versions(tmp_path, 2)
    made.clock, made.windows = WallClock(), parse_windows("0 9 * * * PT1H UTC")
    return made


def show(node: NodeInMemory, spine: Reconciler, hour: int) -> None:
    """Set the clock, and decide again, as the schedule has it done when a window changes."""
    assert isinstance(node.clock, WallClock)
    node.clock.show(hour)
    spine.wake()


def explained(spine: Reconciler) -> Explanation:
    return explain(spine.look(M), M, A, spine.observation.active_of(M).get(A))


def notes(node: NodeInMemory) -> dict[str, str]:
    """What the gateway shows of the aliases."""
    assert node.gateway.catalogue is not None
    (model,) = (one for one in node.gateway.catalogue.models if one.name == M)
    return model.notes


async def promoted(node: NodeInMemory, spine: Reconciler) -> None:
    """Point the alias at version 2, whose bytes are here then."""
    await node.serves(1)
    await node.promotes(2)
    await node.shows(2, VersionState.AVAILABLE)


@pytest.mark.parametrize("swap", ["blue_green", "unload_first"])
async def test_a_promotion_waits_visibly_until_its_window_opens(
    node: NodeInMemory, swap: str
) -> None:
    node.registry.models[M] = replace(node.registry.models[M], tags={"gateway.swap": swap})
    async with node.control_plane() as spine:
        await promoted(node, spine)
        await idle(spine)
        found = explained(spine)
        assert (found.active, found.target, found.why) == (1, 2, Cause.AWAITS_WINDOW)
        assert found.reason.startswith("waits for the promotion window that opens at 20")
        assert found.reason.endswith("T09:00:00Z")
        assert {one.version for one in node.gateway.stages} == {1}
        assert notes(node) == {A: found.reason}
        show(node, spine, 9)
        await node.serves(2)
        await becomes(lambda: not notes(node), "it waits no more")


async def is_staged_until_the_window_has_closed(node: NodeInMemory, spine: Reconciler) -> None:
    await promoted(node, spine)
    node.gateway.stages_wait = True
    show(node, spine, 9)
    await becomes(lambda: node.gateway.stages[-1].version == 2, "it is being staged")
    show(node, spine, 10)
    node.gateway.stages_wait = False
    node.gateway.end_stage(node.gateway.stages[-1])


async def test_a_standby_that_is_warm_after_the_window_is_given_back(node: NodeInMemory) -> None:
    async with node.control_plane() as spine:
        await is_staged_until_the_window_has_closed(node, spine)
        await becomes(lambda: any(one.version == 2 for one in node.gateway.standbys.values()), "up")
        await becomes(lambda: not node.gateway.standbys, "its standby is given back")
        await idle(spine)
        assert not node.gateway.standbys
        assert node.gateway.points(M, A) == 1
        assert not spine.steps.backoff.failures(M)


async def test_what_has_unloaded_its_predecessor_is_activated_after_the_window(
    node: NodeInMemory,
) -> None:
    node.registry.models[M] = replace(
        node.registry.models[M], tags={"gateway.swap": "unload_first"}
    )
    async with node.control_plane() as spine:
        await is_staged_until_the_window_has_closed(node, spine)
        await node.settles_at(2)
        assert explained(spine).why is Cause.FOLLOWS


@pytest.mark.parametrize(("swap", "staged"), [("blue_green", True), ("unload_first", False)])
async def test_what_is_compared_until_the_window_has_closed_does_not_act(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch, swap: str, staged: bool
) -> None:
    node.registry.models[M] = replace(node.registry.models[M], tags={"gateway.swap": swap})
    clock = node.clock
    assert isinstance(clock, WallClock)
    async with node.control_plane() as spine:
        await promoted(node, spine)
        compare = node.registry.remote_listing

        def slowly(*args, **kwargs):
            clock.show(10)
            return compare(*args, **kwargs)

        monkeypatch.setattr(node.registry, "remote_listing", slowly)
        show(node, spine, 9)
        await becomes(lambda: explained(spine).why is Cause.AWAITS_WINDOW, "it has closed")
        await node.stays_at(1)
        assert any(one.version == 2 for one in node.gateway.stages) is staged
        monkeypatch.undo()
        show(node, spine, 9)
        await node.serves(2)
