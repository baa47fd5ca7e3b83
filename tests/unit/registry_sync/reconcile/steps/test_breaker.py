"""Of a model whose versions do not come, few are tried at a time, and each in its turn."""

import asyncio
from collections.abc import Iterable

from registry_sync.errors import IncompleteArtifactError, SourceError, SyncError
from registry_sync.planning.actions import Action, Fetch, Urgency
from registry_sync.reconcile.steps.backoff import Backoff
from registry_sync.reconcile.steps.outcome import Stopped
from registry_sync.reconcile.steps.runner import Steps
from tests.fakes.gateway import becomes
from tests.fakes.nodes import A, M, NodeInMemory
from tests.fakes.operating import asking

MINUTE_S = 60


class Storage:
    """Answers fetches as told, and counts them; passes are made each second of its own clock."""

    def __init__(self, *, comes: Iterable[int] = ()) -> None:
        self.now = 0.0
        self.comes = set(comes)
        self.error: SyncError = SourceError("the storage does not answer")
        self.tried: list[int] = []
        self.at_once = self.most_at_once = 0
        self.steps = Steps(
            do=self._do,
            record=self._record,
            on_end=lambda _: None,
            may_overtake=lambda _doing, _action: False,
            backoff=Backoff(clock=lambda: self.now, jitter=lambda: 1.0),
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )

    async def _do(self, action: Action, _watch: object) -> Stopped | None:
        assert isinstance(action, Fetch)
        self.tried.append(action.version)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if action.version in self.comes:
            return None
        raise self.error

    async def _record(self, _attempt: object) -> None:
        return

    async def pass_for(self, seconds: int, wanted: list[int], urgency: Urgency) -> None:
        for _ in range(seconds):
            came = self.comes & set(self.tried)
            due = [Fetch(M, one, urgency) for one in wanted if one not in came]
            self.steps.forget_idle(due, {M})
            for action in due:
                self.steps.start(action)
            await asyncio.gather(*self.steps.busy.values())
            self.now += 1


async def test_many_versions_of_a_storage_that_is_gone_are_asked_for_rarely_and_in_turn() -> None:
    storage, wanted = Storage(), list(range(1, 21))
    await storage.pass_for(10, wanted, Urgency.WANTED)
    storage.tried.clear()
    storage.most_at_once = 0
    await storage.pass_for(2 * MINUTE_S, wanted, Urgency.WANTED)
    assert storage.most_at_once == 1
    assert len(storage.tried) <= 2 * MINUTE_S / 2.5, "one in every pause; 400 without a breaker"
    assert set(storage.tried) == set(wanted), "each has its turn"


async def test_a_storage_that_is_back_is_asked_freely_at_once() -> None:
    storage, wanted = Storage(), list(range(1, 21))
    await storage.pass_for(MINUTE_S, wanted, Urgency.WANTED)
    storage.comes.update(wanted)
    storage.tried.clear()
    await storage.pass_for(16, wanted, Urgency.WANTED)
    assert set(storage.tried) == set(wanted)
    assert not storage.steps.breaker.open()


async def test_one_version_with_a_fault_of_its_own_keeps_back_no_other() -> None:
    storage, wanted = Storage(comes=range(2, 6)), [1]
    await storage.pass_for(MINUTE_S, wanted, Urgency.WANTED)
    storage.tried.clear()
    await storage.pass_for(4, [1, 2, 3, 4, 5], Urgency.WANTED)
    assert {2, 3, 4, 5} <= set(storage.tried)


async def test_versions_with_faults_of_their_own_leave_the_others_their_turn() -> None:
    storage = Storage(comes=[9])
    await storage.pass_for(MINUTE_S, [1, 2, 3, 4], Urgency.WANTED)
    assert M in storage.steps.breaker.open()
    storage.tried.clear()
    await storage.pass_for(12, [1, 2, 3, 4, 9], Urgency.WANTED)
    assert 9 in storage.tried


async def test_a_promotion_waits_for_its_own_next_try_only() -> None:
    storage = Storage(comes=[30])
    await storage.pass_for(10, list(range(1, 21)), Urgency.WANTED)
    storage.tried.clear()
    await storage.pass_for(1, [30], Urgency.PROMOTION)
    assert storage.tried == [30]


async def test_a_clock_that_is_set_back_makes_nobody_wait() -> None:
    storage, wanted = Storage(), list(range(1, 21))
    await storage.pass_for(MINUTE_S, wanted, Urgency.WANTED)
    storage.now -= 3600
    storage.comes.update(wanted)
    storage.tried.clear()
    await storage.pass_for(16, wanted, Urgency.WANTED)
    assert set(storage.tried) == set(wanted)


async def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    storage = Storage()
    await storage.pass_for(10, list(range(1, 21)), Urgency.WANTED)
    assert storage.steps.breaker.open()
    await storage.pass_for(1, [], Urgency.WANTED)
    assert not storage.steps.breaker.open()


async def test_status_says_so_and_sync_tries_at_once(tmp_path) -> None:
    node = NodeInMemory(tmp_path)
    for version in range(1, 7):
        node.registry.publish(M, version)
    node.registry.without_latest(M)
    node.registry.point(M, A, 1)
    async with node.control_plane() as spine, asking(node, spine) as operator:
        await node.serves(1)
        node.registry.fetch_error = SourceError("the storage does not answer")
        for version in range(2, 7):
            node.gateway.want(M, version)
        await becomes(spine.steps.breaker.open, "three have failed")
        state = (await operator.get("/state")).json()
        assert any(
            "one is tried at a time: the storage does not answer" in problem
            for problem in state["problems"]
        )
        node.registry.fetch_error = None
        node.operators.try_now(M)
        await becomes(
            lambda: all((v := node.gateway.version(M, n)) and v.digest for n in range(2, 7)),
            "all of them come",
        )
        assert not spine.steps.breaker.open()


async def test_an_upload_in_progress_is_looked_at_every_few_seconds() -> None:
    storage = Storage()
    storage.error = IncompleteArtifactError("it moves")
    await storage.pass_for(10 * MINUTE_S, [1], Urgency.PREFETCH)
    assert len(storage.tried) >= 10 * MINUTE_S / 11
