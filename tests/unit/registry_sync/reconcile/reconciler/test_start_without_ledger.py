"""A control plane that starts while its ledger does not answer takes nothing away."""

from pathlib import Path

import pytest

from gateway.contract.catalogue import VersionState
from registry_sync.domain import Hold
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle, promoted
from tests.fakes.waiting import becomes


@pytest.fixture
async def node(tmp_path: Path) -> NodeInMemory:
    """A node on which @champion points at 1, and 2 has been called by number."""
    made = NodeInMemory.with_versions(tmp_path, 3)
    async with made.control_plane() as spine:
        await made.serves(1)
        made.gateway.want(M, 2)
        await made.shows(2, VersionState.AVAILABLE)
        await idle(spine)
    made.registry.fetched.clear()
    return made


async def tells(node: NodeInMemory, spine: Reconciler) -> None:
    """Wait until the gateway has a catalogue of this process."""

    def told() -> bool:
        catalogue = node.gateway.catalogue
        return catalogue is not None and catalogue.writer == spine.announcer._writer

    await becomes(told, "the catalogue is published")
    await idle(spine)


async def test_what_is_here_is_offered_and_promoted(node: NodeInMemory) -> None:
    content = node.break_ledger()
    async with node.control_plane() as spine:
        await tells(node, spine)
        assert spine.journal.trouble is not None
        for number in (1, 2):
            entry = node.entry(number)
            assert entry.digest == node.registry.digest(M, number)
        await node.promotes(2)
        await node.serves(2)
        assert node.registry.fetched == []
        node.mend_ledger(content)
        spine.wake()
        await becomes(lambda: spine.journal.answered, "the ledger is read")
        await idle(spine)
        assert [a.version for a in spine.ledger.activations_of(M, A)] == [2, 1]


async def test_bytes_altered_meanwhile_are_not_promoted(node: NodeInMemory) -> None:
    node.break_ledger()
    node.registry.tamper(M, 2)
    node.registry.point(M, A, 2)
    async with node.control_plane() as spine:
        await becomes(lambda: spine.steps.backoff.get(("activate", M, A)), "they are refused")
        assert node.gateway.points(M, A) == 1


async def test_bytes_that_only_the_ledger_may_have_seen_are_not_fetched(
    node: NodeInMemory,
) -> None:
    content = node.break_ledger()
    node.registry.point(M, A, 3)
    async with node.control_plane() as spine:
        await becomes(lambda: spine.steps.backoff.get(("fetch", M, 3)), "the fetch is refused")
        assert node.registry.fetched == []
        node.mend_ledger(content)
        await node.serves(3)


async def test_bytes_that_are_stamped_are_promoted(node: NodeInMemory) -> None:
    node.break_ledger()
    node.registry.stamp(M, 3, node.registry.digest(M, 3))
    node.registry.point(M, A, 3)
    async with node.control_plane():
        await node.serves(3)


@pytest.mark.parametrize("damaged", [False, True])
async def test_what_was_rolled_back_stays_rolled_back(node: NodeInMemory, damaged: bool) -> None:
    async with node.control_plane() as spine:
        await promoted(node, 2)
        await node.operators.hold(Hold(M, A, 2, 1, node.registry.digest(M, 1), "operator", 1.0))
        await node.settles_at(1)
    node.break_ledger()
    if damaged:
        (node.folder / "holds.json").write_text("{")
    async with node.control_plane() as spine:
        await tells(node, spine)
        await node.stays_at(1)
        assert bool(spine.journal.view.holds) is not damaged


@pytest.mark.parametrize("restarted", [False, True])
async def test_with_the_registry_down_too_a_gateway_keeps_the_catalogue_that_it_has(
    node: NodeInMemory, restarted: bool
) -> None:
    node.break_ledger()
    node.registry.down = True
    before = node.gateway.catalogue
    if restarted:  # and it lost its catalogue
        node.gateway.restart()
    async with node.at_rest() as spine:
        if restarted:
            await tells(node, spine)
            await node.shows(2, VersionState.AVAILABLE)
        else:
            await spine.poll()
            await tells(node, spine)
            catalogue = node.gateway.catalogue
            assert before is not None
            assert catalogue is not None
            assert (catalogue.models, catalogue.complete) == (before.models, True)
            assert catalogue.source_error == "the registry does not answer"
