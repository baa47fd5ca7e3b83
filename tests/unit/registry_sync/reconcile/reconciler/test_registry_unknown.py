"""The control plane starts while nobody can list the registry, and some things happen first."""

import asyncio
import threading

import pytest

from gateway.contract import AliasRef
from gateway.contract.catalogue import Catalogue, VersionState
from gateway.errors import RegistryUnavailableError
from gateway.routing.route_table import RouteTable
from registry_sync.domain.aspired import Aspired
from registry_sync.errors import SourceError
from registry_sync.reconcile import reconciler
from registry_sync.reconcile.registry import registry_view
from tests.fakes.nodes import A, M, NodeInMemory, idle, moved, polled
from tests.fakes.operating import asking, decide
from tests.fakes.waiting import becomes


def too_slow(before: Aspired | None = None) -> Aspired:
    """The whole list takes too long; single models answer."""
    raise SourceError("the registry did not answer within 30 s")


async def both_served(node: NodeInMemory) -> None:
    """Have another model followed, too, and the control plane killed then."""
    node.registry.publish("other", 1)
    async with node.following(1) as spine:
        await becomes(lambda: node.gateway.points("other", "latest") == 1, "both serve")
        await idle(spine)


def listed(node: NodeInMemory) -> set[str]:
    catalogue = node.gateway.catalogue
    return {model.name for model in catalogue.models} if catalogue else set()


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_rollback_holds_until_the_registry_moves_the_alias_and_not_until_it_is_listed(
    node: NodeInMemory, remembered: bool
) -> None:
    await node.followed(1, 2)
    if not remembered:
        (node.folder / "ledger.db").unlink()
    content = node.break_ledger() if remembered else b""
    node.registry.down = True
    async with node.control_plane() as spine, asking(node, spine) as client:
        if remembered:
            node.mend_ledger(content)
        await idle(spine)
        answer = await decide(client, "/rollback", model=M, alias=A, version=1)
        assert answer["outcome"] == "active", answer
        aspired = answer["explained"][0]["hold"]["while_aspired"]
        assert aspired == (2 if remembered else None)
        node.registry.down = False
        await moved(node, 2)  # where it was
        assert node.gateway.points(M, A) == 1
        assert spine.journal.view.holds[AliasRef(M, A)].aspired_version == 2
    async with node.at_rest() as spine:
        assert node.gateway.points(M, A) == 1
        node.registry.publish(M, 3, latest=False)
        await moved(node, 3)
        await node.serves(3)


async def test_a_hint_before_the_first_listing_hides_no_other_model(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_served(node)
    (node.folder / "ledger.db").unlink()
    monkeypatch.setattr(node.registry, "aspired", too_slow)
    async with node.at_rest() as spine:
        spine.hint(M, "webhook")
        await becomes(lambda: spine.listings.aspired.models, "it was looked at")
        await idle(spine)
        assert listed(node) == {M, "other"}
        assert spine.ledger.last_listing() is None
        node.gateway.restart(lose_table=True)
        await becomes(lambda: node.gateway.points("other", "latest") == 1, "it comes back")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_gateway_learns_what_keeps_the_registry_from_its_first_listing(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    released = threading.Event()

    def hang(_before: Aspired | None = None) -> Aspired:
        released.wait(60)
        raise SourceError("over")

    monkeypatch.setattr(registry_view, "_SILENT_AT_FIRST_S", 0.05)
    monkeypatch.setattr(reconciler, "_LONGEST_SLEEP_S", 0.05)
    if hangs:
        monkeypatch.setattr(node.registry, "aspired", hang)
    node.registry.down = not hangs
    says = "the registry at fake:/ has not answered" if hangs else "does not answer"
    async with node.control_plane(poll=False) as spine:
        first = asyncio.create_task(spine.poll())
        await becomes(lambda: says in str(told(node).source_error), "the gateway is told")
        assert (told(node).models, told(node).complete, told(node).listed_at) == ([], False, None)
        with pytest.raises(RegistryUnavailableError, match=says):
            RouteTable(A, catalogue=told(node)).resolve(M, None)
        released.set()
        await first


def told(node: NodeInMemory) -> Catalogue:
    return node.gateway.catalogue or Catalogue(writer="", epoch=0, models=[])


async def test_a_catalogue_from_before_loses_nothing_to_a_ledger_that_knows_less(
    node: NodeInMemory,
) -> None:
    node.registry.publish(M, 9)
    await both_served(node)
    before = told(node).models
    (node.folder / "ledger.db").unlink()
    node.registry.down = True
    async with node.at_rest() as spine:
        await becomes(lambda: told(node).source_error, "the gateway is told")
        assert told(node).models == before
        node.registry.down = False
        node.registry.forget("other")
        await spine.poll()
        await polled(spine)
        other = node.gateway.version("other", 1)
        assert other is not None
        assert other.state is VersionState.DELETED, "a listing says that it is gone"


async def test_what_is_remembered_is_told_once(node: NodeInMemory) -> None:
    await both_served(node)
    (node.folder / "ledger.db").unlink()
    node.registry.down = True
    async with node.at_rest() as spine:
        await becomes(lambda: told(node).source_error, "the gateway is told")
        assert not spine.listings.complete
        models = spine.announcer.models
        assert {name: one.remembered for name, one in models.items()} == {M: True, "other": True}
        before = node.gateway.snapshots
        for _ in range(5):
            spine.wake()
            await spine.next_decision()
        assert node.gateway.snapshots == before, "nothing is news"
        node.registry.down = False
        await polled(spine)
        assert not any(one.remembered for one in spine.announcer.models.values())
        assert told(node).complete


async def test_what_is_remembered_counts_from_the_ledgers_first_answer(node: NodeInMemory) -> None:
    await both_served(node)
    content = node.break_ledger()
    node.registry.down = True
    async with node.control_plane() as spine:
        assert spine.listings.aspired.models == {}
        node.mend_ledger(content)
        await becomes(
            lambda: spine.listings.aspired.models.keys() == {M, "other"}, "both are remembered"
        )
        await idle(spine)
