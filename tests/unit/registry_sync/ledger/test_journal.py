"""A ledger that takes nothing and can be read: it counts, and is owed what it did not take."""

from pathlib import Path

import pytest

from gateway.contract import AliasRef
from registry_sync.domain import Activation, LedgerView
from registry_sync.errors import LedgerError
from registry_sync.ledger.journal import Journal
from registry_sync.ledger.ledger import Ledger
from registry_sync.system.threads import Threads
from tests.fakes.nodes import A, M, NodeInMemory, idle, ledger_answers, polled
from tests.fakes.operating import asking
from tests.fakes.waiting import becomes

VERSIONS = 3


async def test_a_view_is_complete_while_the_ledger_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=lambda: 0.0)
    threads = Threads()
    journal = Journal(ledger, threads)

    def fail(*_: object) -> LedgerView:
        raise LedgerError("it does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "view", fail)
        assert await journal.refresh((), None) is False
    assert await journal.refresh((), None) is True
    ledger.close()
    assert threads.close(timeout_s=5)


async def reject(node: NodeInMemory, version: int) -> None:
    """Leave a version that the ledger knows to be rejected, and a ledger that owes nothing."""
    async with node.following(1, 2) as spine:
        node.gateway.fails[M, version] = ("load_failed", "broken")
        await node.promotes(version)
        await becomes(lambda: spine.journal.view.rejections, "it is rejected")
        await idle(spine)


async def test_it_is_read_though_a_decision_waits_for_it(node: NodeInMemory) -> None:
    await reject(node, 3)
    with node.refusing_ledger():
        async with node.control_plane() as spine, asking(node, spine) as client:
            assert (await client.post("/freeze")).json()["not_recorded"]
        staged = len(node.gateway.stages)
        async with node.at_rest() as spine:
            view = spine.journal.view
            assert spine.journal.answered
            assert spine.journal.trouble is not None
            assert [version for _, version, _ in view.rejections] == [3]
            assert (M, A) in view.last_active
            assert view.freeze is not None
            assert len(node.gateway.stages) == staged


async def test_it_is_read_though_it_lacks_a_digest_that_the_store_has(node: NodeInMemory) -> None:
    await reject(node, 3)
    node.registry.publish("other", 1)
    with node.refusing_ledger():
        async with node.control_plane() as spine:
            await becomes(lambda: spine.steps.backoff.get(("fetch", "other", 1)), "it is refused")
            await idle(spine)
        async with node.at_rest() as spine:
            assert spine.journal.answered
            assert [version for _, version, _ in spine.journal.view.rejections] == [3]
    async with node.control_plane() as spine:
        await becomes(lambda: ("other", 1) in spine.ledger.view().accepted, "it is accepted")


async def test_a_rollback_by_rule_is_recorded_when_it_takes_things_again(
    node: NodeInMemory,
) -> None:
    async with node.following(1, 2) as spine:
        await polled(spine)
        with node.refusing_ledger():
            node.gateway.go_back(M, A, "worse")
            await becomes(lambda: spine.journal.trouble, "the ledger refuses it")
            await idle(spine)
            assert not spine.journal.view.holds
        await ledger_answers(spine)
        await becomes(lambda: spine.journal.view.holds, "it is recorded", patience_s=10)
        assert spine.ledger.view().holds[AliasRef(M, A)].target_version == 1


async def test_what_it_refuses_of_one_model_holds_up_no_other(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What serves is adopted after a start: of the first model, the ledger takes nothing."""
    node.registry.publish("other", 1)
    node.registry.without_latest("other")
    node.registry.point("other", A, 1)
    async with node.following(1) as spine:
        await becomes(lambda: node.gateway.points("other", A) == 1, "the other one serves")
        await idle(spine)
    (node.folder / "ledger.db").unlink()
    activated = Ledger.activated

    def refuse(ledger: Ledger, moved: Activation) -> None:
        if moved.model == M:
            raise LedgerError("not of this model")
        activated(ledger, moved)

    monkeypatch.setattr(Ledger, "activated", refuse)
    async with node.control_plane(poll=False) as spine:
        await becomes(lambda: spine.journal.trouble, "the ledger refuses one of them")
        for _ in range(2):
            await spine.next_decision()
        assert spine.ledger.view().last_active.keys() == {("other", A)}
