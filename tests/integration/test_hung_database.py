"""A PostgreSQL that hangs: connections stay, nothing is refused, and nothing is answered."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.contract import AliasRef
from registry_sync.ledger import bounded_calls
from tests.fakes.nodes import A, M, NodeInMemory, idle, promoted
from tests.fakes.operating import asking
from tests.fakes.waiting import becomes
from tests.servers import Postgres

LIMIT_S = 1.0
REST_S = 0.5
SOON_S = 30.0
"""Generous: the database hangs for as long as it is waited for."""


@pytest.fixture
async def node(
    tmp_path: Path, postgresql_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> NodeInMemory:
    """A node on which @champion points at 1, and 2 is here."""
    monkeypatch.setattr(bounded_calls, "_ANSWER_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(bounded_calls, "_PAUSE_S", REST_S)
    made = NodeInMemory.with_versions(tmp_path, 3)
    made.ledger_url = postgresql_server.empty_database()
    return made


async def within(limit_s: float, predicate: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(limit_s):
        await becomes(predicate, what)


async def test_decisions_go_on_and_are_recorded_once_it_answers(
    node: NodeInMemory, postgresql_server: Postgres
) -> None:
    async with node.following(1) as spine, asking(node, spine) as operator:
        await node.brings(2)
        await idle(spine)
        with postgresql_server.hung():
            node.registry.point(M, A, 2)
            poll = asyncio.create_task(spine.poll())
            await within(SOON_S, lambda: spine.journal.trouble, "the trouble is shown")
            assert f"did not answer within {LIMIT_S:g} s" in str(spine.journal.trouble)
            await within(SOON_S, lambda: node.gateway.points(M, A) == 2, "it is promoted")
            state = (await operator.get("/state")).json()
            assert state["ledger_error"], state
            async with asyncio.timeout(SOON_S):
                frozen = (await operator.post("/freeze")).json()
                assert (frozen["changed"], frozen["frozen"]["asked_by"]) == (True, "operator")
                assert "waits in holds.json" in frozen["not_recorded"]
                unfrozen = (await operator.post("/unfreeze")).json()
                assert unfrozen["changed"] is True
                assert (await operator.get("/history")).status_code == 503
                await poll
        await within(SOON_S, lambda: spine.journal.trouble is None, "all is well by itself")
        spine.wake()
        await idle(spine)
        moves = spine.ledger.activations_of(M, A)
        assert [(one.version, one.previous_version) for one in moves] == [(2, 1), (1, None)]
        assert spine.journal.view.last_active[AliasRef(M, A)].version == 2
        told = {one.what for one in spine.ledger.decisions_of(M)}
        assert told == {"freeze", "unfreeze"}
        await becomes(lambda: not spine.threads.abandoned_ledger_threads(), "no thread is left")
        await promoted(node, 3)
        assert [one.version for one in spine.ledger.activations_of(M, A)] == [3, 2, 1]


async def test_a_control_plane_ends_while_it_hangs(
    node: NodeInMemory, postgresql_server: Postgres
) -> None:
    async with node.at_rest(1) as spine:
        asking_began = threading.Event()

        def ask() -> object:
            asking_began.set()
            return spine.ledger.view()

        with postgresql_server.hung():
            asked = asyncio.create_task(spine.threads.ledger(ask))
            await becomes(asking_began.is_set, "a thread asks")
            async with asyncio.timeout(SOON_S):
                await spine.journal.close()
            assert spine.threads.close(timeout_s=SOON_S), "a thread stands in the database"
            await asyncio.gather(asked, return_exceptions=True)
