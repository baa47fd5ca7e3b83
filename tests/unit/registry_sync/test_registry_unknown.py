"""The control plane starts while nobody can list the registry, and some things happen first."""

import pytest

from registry_sync.aspired import Aspired
from registry_sync.errors import SourceError
from registry_sync.reconcile import Reconciler
from tests.fakes.gateway import becomes
from tests.unit.registry_sync.nodes import A, M, NodeInMemory, idle
from tests.unit.registry_sync.operating import asking, promoted


def too_slow(before: Aspired | None = None) -> Aspired:
    """The whole list takes too long; single models answer."""
    raise SourceError("the registry did not answer within 30 s")


async def moved(node: NodeInMemory, spine: Reconciler, version: int) -> None:
    node.registry.point(M, A, version)
    await spine.poll()
    await idle(spine)


def listed(node: NodeInMemory) -> set[str]:
    catalogue = node.gateway.catalogue
    return {model.name for model in catalogue.models} if catalogue else set()


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_rollback_holds_until_the_registry_moves_the_alias_and_not_until_it_is_listed(
    node: NodeInMemory, remembered: bool
) -> None:
    async with node.control_plane() as spine:
        await node.serves(1)
        await promoted(node, spine, 2)
    if not remembered:
        (node.folder / "ledger.db").unlink()
    content = node.break_ledger() if remembered else b""
    node.registry.down = True
    async with node.control_plane() as spine, asking(node, spine) as client:
        if remembered:
            node.mend_ledger(content)
        await idle(spine)
        body = {"model": M, "alias": A, "version": 1}
        answer = (await client.post("/rollback", json=body)).json()
        assert answer["outcome"] == "active", answer
        assert answer["held_while_aspired"] == (2 if remembered else None)
        node.registry.down = False
        await moved(node, spine, 2)  # where it was
        assert node.gateway.points(M, A) == 1
        assert spine.journal.view.holds[M, A].aspired_version == 2
    async with node.control_plane() as spine:
        await idle(spine)
        assert node.gateway.points(M, A) == 1
        node.registry.publish(M, 3)
        node.registry.without_latest(M)
        await moved(node, spine, 3)
        await node.serves(3)


async def test_a_hint_before_the_first_listing_hides_no_other_model(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.registry.publish("other", 1)
    async with node.control_plane() as spine:
        await node.serves(1)
        await becomes(lambda: node.gateway.points("other", "latest") == 1, "both serve")
        await idle(spine)
    (node.folder / "ledger.db").unlink()
    monkeypatch.setattr(node.registry, "aspired", too_slow)
    async with node.control_plane() as spine:
        await idle(spine)
        spine.hint(M, "webhook")
        await becomes(lambda: spine.listings.aspired.models, "it was looked at")
        await idle(spine)
        assert listed(node) == {M, "other"}
        assert spine.ledger.last_listing() is None
        node.gateway.restart(lose_table=True)
        await becomes(lambda: node.gateway.points("other", "latest") == 1, "it comes back")


async def test_what_is_remembered_counts_from_the_ledgers_first_answer(node: NodeInMemory) -> None:
    node.registry.publish("other", 1)
    async with node.control_plane() as spine:
        await node.serves(1)
        await becomes(lambda: node.gateway.points("other", "latest") == 1, "both serve")
        await idle(spine)
    content = node.break_ledger()
    node.registry.down = True
    async with node.control_plane() as spine:
        assert spine.listings.aspired.models == {}
        node.mend_ledger(content)
        await idle(spine)
        assert spine.listings.aspired.models.keys() == {M, "other"}
