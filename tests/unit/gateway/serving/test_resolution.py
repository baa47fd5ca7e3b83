"""How calls are resolved, what they wait for, and what is wanted meanwhile."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.contract.catalogue import Environment, VersionState
from gateway.contract.references import ArtifactRef
from gateway.errors import (
    DrainingError,
    GatewayError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
    RegistryUnavailableError,
    VersionConflictError,
)
from gateway.routing.node import CONTROL_PLANE_SILENT_S
from gateway.serving import resolution
from gateway.serving.resolution import Resolution, resolve
from tests.fakes.calls import (
    ACTIVE,
    DIGEST,
    OTHER,
    call_of,
    catalogue_of,
    node_of,
    version_of,
)


class Residents:
    """A resident set with replicas of one version, or of none."""

    def __init__(self, digest=None):
        self.key = ArtifactRef("churn", 1, digest) if digest else None
        self.load_history = SimpleNamespace(expected_load_s=lambda key: 1.0)

    def is_ready(self, key):
        return key == self.key


def resolution_on(node, digest=None, load_budget_s=60.0, max_waiting=100):
    residents: Any = Residents(digest)
    return Resolution(node, residents, load_budget_s=load_budget_s, max_waiting=max_waiting)


def waiting(node, selector="champion", load_budget_s=60.0):
    until_routable = resolution_on(node, load_budget_s=load_budget_s).until_routable
    return asyncio.ensure_future(until_routable(call_of(selector)))


async def cancel(*waits):
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def some_steps(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def registered(number, here=()):
    """A version whose bytes are on the node only if its number is in ``here``."""
    if number in here:
        return version_of(number)
    return version_of(number, VersionState.REGISTERED, None)


def empty_node(aspired=1):
    """A node that lists two versions and has the bytes of neither."""
    return node_of(registered(1), registered(2), aspired=aspired)


def wanted(node):
    return [one.version for one in node.wanted()]


class TestWaiting:
    @pytest.mark.parametrize("selector", ["champion", None])
    async def test_call_waits_until_its_alias_is_active(self, selector):
        node = node_of()
        wait = waiting(node, selector)
        await asyncio.sleep(0)
        assert not wait.done()
        node.replace(node.table.with_active(ACTIVE))
        assert (await wait).digest == DIGEST

    async def test_call_waits_for_the_load_budget_at_most(self):
        with pytest.raises(ModelLoadingError, match="not active on this node yet") as late:
            await waiting(node_of(), load_budget_s=0.01)
        assert late.value.retry_after_s == 2.0

    async def test_call_is_refused_while_the_control_plane_is_silent(self):
        moments = iter([0.0])
        node = node_of(monotonic=lambda: next(moments, CONTROL_PLANE_SILENT_S + 1))
        with pytest.raises(ModelLoadingError):
            await waiting(node)

    async def test_version_is_not_waited_for_while_its_fetcher_is_silent(self):
        moments = iter([0.0])
        silent = node_of(registered(1), monotonic=lambda: next(moments, CONTROL_PLANE_SILENT_S + 1))
        with pytest.raises(RegistryUnavailableError, match="silent for 15 s"):
            await waiting(silent, "1")

    async def test_waiting_call_is_refused_when_the_gateway_drains(self):
        node = node_of()
        waits = resolution_on(node)
        wait = asyncio.ensure_future(waits.until_routable(call_of()))
        await some_steps()
        waits.draining = True
        node.changed()
        with pytest.raises(DrainingError):
            await wait

    async def test_rejected_version_is_refused_with_its_reason(self):
        reason = "rejected for aliases (warm_up_failed): it answers NaN"
        with pytest.raises(ModelLoadFailedError, match=r"rejected for aliases .* it answers NaN"):
            await waiting(node_of(version_of(rejected=True, reason=reason)))

    async def test_failed_fetch_ends_the_wait(self):
        node = empty_node()
        wait = waiting(node)
        await some_steps()
        failed = version_of(1, VersionState.FAILED, None, reason="no connection")
        node.replace(node.table.with_catalogue(catalogue_of(failed, epoch=2)))
        with pytest.raises(ModelLoadFailedError, match="no connection"):
            await wait
        assert [(one.version, one.alias) for one in node.wanted()] == [(1, None)]


class TestWanted:
    @pytest.mark.parametrize("selector", ["champion", None])
    async def test_alias_is_wanted_until_it_is_active(self, selector):
        node = empty_node()
        wait = waiting(node, selector)
        await some_steps()
        assert wanted(node) == [1]
        node.replace(node.table.with_catalogue(catalogue_of(registered(1, here=(1,)))))
        await some_steps()
        assert (wanted(node), wait.done()) == ([1], False), "it must be staged and activated too"
        assert [one.alias for one in node.wanted()] == ["champion"]
        node.replace(node.table.with_active(ACTIVE))
        assert wanted(node) == []
        await wait

    async def test_wanted_version_follows_the_alias(self):
        node = empty_node()
        wait = waiting(node)
        await some_steps()
        node.replace(
            node.table.with_catalogue(catalogue_of(registered(1), registered(2), aspired=2))
        )
        await some_steps()
        assert wanted(node) == [2]
        await cancel(wait)
        assert wanted(node) == []

    async def test_version_is_wanted_once_until_its_last_caller_leaves(self):
        node = empty_node()
        waits = resolution_on(node)
        calls = [asyncio.ensure_future(waits.until_routable(call_of())) for _ in range(3)]
        await some_steps()
        since = node.wanted()
        await cancel(*calls[:2])
        for _ in range(3):
            node.changed()
            await some_steps()
        assert node.wanted() == since != []
        await cancel(calls[2])
        assert wanted(node) == []

    async def test_too_many_waiting_calls_are_refused(self):
        waits = resolution_on(node_of(), max_waiting=1)
        first = asyncio.ensure_future(waits.until_routable(call_of()))
        await some_steps()
        with pytest.raises(ModelOverloadedError):
            await waits.until_routable(call_of())
        await cancel(first)

    async def test_waits_for_different_aliases_do_not_wake_each_other(self):
        node = empty_node()
        churn = catalogue_of(registered(1), registered(2))
        other = churn.models[0].model_copy(update={"name": "wine"})
        both = churn.model_copy(update={"models": [*churn.models, other]})
        node.replace(node.table.with_catalogue(both))
        waits = resolution_on(node)
        second = call_of()
        second.model = "wine"
        calls = [asyncio.ensure_future(waits.until_routable(one)) for one in (call_of(), second)]
        await some_steps(20)
        before = node.seq
        await some_steps(50)
        assert node.seq == before
        assert [(one.model, one.version) for one in node.wanted()] == [("churn", 1), ("wine", 1)]
        await cancel(*calls)

    async def test_retry_after_covers_the_queue_of_wanted_versions(self):
        """Other versions are wanted, and one is activated every five seconds."""
        now, node = [0.0], empty_node()
        node._monotonic = lambda: now[0]
        node.listening(1)
        for number in range(40):
            node.want(f"m{number}", 1, "champion")
        for number in range(10):
            now[0] += 5.0
            entry = ACTIVE.model_copy(update={"model": f"m{number}"})
            node.replace(node.table.with_active(entry))
        assert len(wanted(node)) == 30
        with pytest.raises(ModelLoadingError) as late:
            await waiting(node, load_budget_s=0.01)
        assert late.value.retry_after_s == pytest.approx(31 * 5.0)

    async def test_refused_call_makes_a_failed_fetch_wanted_briefly(self, monkeypatch):
        monkeypatch.setattr(resolution, "_WANTED_S", 0.01)
        node = node_of(version_of(1, VersionState.FAILED, None, reason="no connection"))
        for _ in range(2):
            with pytest.raises(ModelLoadFailedError, match="no connection"):
                await waiting(node, "1")
            assert [(one.model, one.version) for one in node.wanted()] == [("churn", 1)]
            async with asyncio.timeout(10):
                while node.wanted():
                    await node.next_change()


def without_copy(state=VersionState.FETCHING, digest=None, **known):
    """A node whose copy of version 1 was dropped: it must have `DIGEST` again."""
    known = {"expected_digest": DIGEST, "accepted_digest": DIGEST, **known}
    return node_of(version_of(1, state, digest, **{"reason": "no connection", **known}))


class TestWithoutCopy:
    @pytest.mark.parametrize(
        "state", [VersionState.REGISTERED, VersionState.FETCHING, VersionState.FAILED]
    )
    async def test_ready_replicas_serve_while_their_copy_is_fetched_again(self, state):
        node = without_copy(state)
        route = await resolution_on(node, DIGEST).until_routable(call_of("1"))
        assert route.digest == DIGEST
        assert wanted(node) == [1], "else nothing fetches it for callers by number"

    @pytest.mark.parametrize(
        ("state", "known"),
        [
            (VersionState.FETCHING, {"expected_digest": OTHER}),
            (VersionState.FETCHING, {"expected_digest": None}),
            (VersionState.FETCHING, {"rejected": True}),
            (VersionState.FETCHING, {"environment": Environment(kind="own")}),
            (VersionState.FAILED, {"description": {"loader_module": "mlflow.sklearn"}}),
            (VersionState.QUARANTINED, {}),
            (VersionState.DELETED, {}),
        ],
    )
    async def test_replicas_of_a_version_that_may_not_serve_are_not_used(self, state, known):
        waits = resolution_on(without_copy(state, **known), DIGEST, load_budget_s=0.01)
        with pytest.raises(GatewayError):
            await waits.until_routable(call_of("1"))

    @pytest.mark.parametrize(("selector", "second"), [("champion", None), ("1", "champion")])
    async def test_replicas_do_not_serve_an_alias_before_its_activation(self, selector, second):
        waits = resolution_on(without_copy(VersionState.FAILED), DIGEST)
        with pytest.raises(ModelLoadFailedError, match="no connection"):
            await waits.until_routable(call_of(selector, second_selector=second))


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("selectors", [("champion", "1"), ("1", "champion")])
def test_alias_and_number_of_a_version_made_anew_conflict(here, selectors):
    node = node_of(active=True)
    call = call_of(selectors[0], second_selector=selectors[1])
    assert resolve(node.table, call).digest == DIGEST
    digest = OTHER if here else None
    state = VersionState.AVAILABLE if here else VersionState.REGISTERED
    anew = version_of(1, state, digest, accepted_digest=digest)
    with pytest.raises(VersionConflictError, match="version 1: it was made anew"):
        resolve(node.table.with_catalogue(catalogue_of(anew, epoch=2)), call)
