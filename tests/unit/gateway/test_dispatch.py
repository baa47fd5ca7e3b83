"""How long a call waits for an alias that is not active on this node yet."""

import asyncio
from typing import Any

import pytest

from gateway import dispatch
from gateway.control_contract import (
    ActiveAlias,
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    VersionState,
)
from gateway.dispatch import Call, Dispatcher
from gateway.errors import ModelLoadFailedError, ModelLoadingError, ModelOverloadedError
from gateway.model_ref import parse_selector
from gateway.node import CONTROL_PLANE_SILENT_S, Node
from gateway.routing import RouteTable

DIGEST = "sha256:" + "1" * 64
ACTIVE = ActiveAlias(model="churn", alias="champion", version=1, digest=DIGEST, since=1.0)


class ReachedError(Exception):
    """The call has got as far as the resident set."""


class FakeResidents:
    def try_lease(self, key):
        raise ReachedError(key)


def failing_node():
    version = CatalogueVersion(version=1, state=VersionState.FAILED, reason="no connection")
    model = CatalogueModel(name="churn", versions=[version])
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[model]))
    return Node(node_id="n", boot_id="b", table=table)


def node(*, rejected=False, now=lambda: 0.0):
    version = CatalogueVersion(
        version=1,
        state=VersionState.AVAILABLE,
        digest=DIGEST,
        rejected=rejected,
        reason="rejected for aliases (warm_up_failed): it answers NaN" if rejected else None,
    )
    model = CatalogueModel(name="churn", versions=[version], aliases={"champion": 1})
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[model]))
    return Node(node_id="n", boot_id="b", table=table, monotonic=now)


def dispatcher_on(of, load_budget_s=60.0, max_waiting_bytes=100):
    residents: Any = FakeResidents()
    return Dispatcher(
        of,
        residents,
        request_timeout_s=1.0,
        load_budget_s=load_budget_s,
        max_waiting=100,
        max_waiting_bytes=max_waiting_bytes,
    )


def predict(of, selector="champion", load_budget_s=60.0):
    return asyncio.ensure_future(dispatcher_on(of, load_budget_s).predict(a_call(selector)))


def a_call(selector="champion", body=b"{}"):
    return Call(
        model="churn",
        selector=parse_selector(selector) if selector else None,
        also=None,
        protocol="predict",
        content_type="application/json",
        content_encoding="",
        request_id="r",
        body=body,
    )


async def test_the_bodies_of_who_waits_are_bounded_and_one_alone_is_never_too_big():
    dispatcher = dispatcher_on(node())
    waiting = asyncio.ensure_future(dispatcher.predict(a_call(body=b"x" * 1000)))
    await asyncio.sleep(0)
    with pytest.raises(ModelOverloadedError):
        await dispatcher.predict(a_call(body=b"y"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    again = asyncio.ensure_future(dispatcher.predict(a_call(body=b"y")))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


async def test_a_call_says_which_version_it_went_to():
    at = node()
    at.replace(at.table.with_active(ACTIVE))
    call = a_call()
    with pytest.raises(ReachedError):
        await dispatcher_on(at).predict(call)
    assert call.route is not None
    assert (call.route.version, call.route.digest) == (1, DIGEST)


@pytest.mark.parametrize("selector", ["champion", None])
async def test_a_call_waits_until_its_alias_is_active(selector):
    at = node()
    call = predict(at, selector)
    await asyncio.sleep(0)
    assert not call.done()
    at.replace(at.table.with_active(ACTIVE))
    with pytest.raises(ReachedError):
        await call


async def test_a_call_waits_no_longer_than_the_load_budget():
    with pytest.raises(ModelLoadingError, match="not active on this node yet"):
        await predict(node(), load_budget_s=0.01)


async def test_a_call_does_not_wait_when_nobody_is_there_to_activate():
    moment = iter([0.0])
    at = node(now=lambda: next(moment, CONTROL_PLANE_SILENT_S + 1))
    with pytest.raises(ModelLoadingError):
        await predict(at)


async def test_a_rejected_version_is_not_waited_for_and_the_reason_is_told():
    with pytest.raises(ModelLoadFailedError, match=r"rejected for aliases .* it answers NaN"):
        await predict(node(rejected=True))


async def test_a_call_for_what_could_not_be_fetched_is_refused_and_shortens_the_wait(monkeypatch):
    monkeypatch.setattr(dispatch, "_WISH_S", 0.01)
    at = failing_node()
    with pytest.raises(ModelLoadFailedError, match="no connection"):
        await predict(at, "1")
    assert [(one.model, one.version) for one in at.wanted()] == [("churn", 1)]
    async with asyncio.timeout(10):
        while at.wanted():
            await at.next_change()
