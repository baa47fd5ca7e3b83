"""How long a call waits for an alias that is not active on this node yet."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    VersionState,
)
from gateway.contract.node_state import ActiveAlias
from gateway.contract.references import ReplicaKey, parse_selector
from gateway.errors import (
    DeadlineExceededError,
    GatewayError,
    ModelLoadFailedError,
    ModelLoadingError,
    NotDeliveredError,
    VersionConflictError,
    WorkerDiedError,
)
from gateway.observability.live_tallies import LiveTallies
from gateway.routing.node import CONTROL_PLANE_SILENT_S, Node
from gateway.routing.route_table import RouteTable
from gateway.serving import dispatch
from gateway.serving.admission import Admission
from gateway.serving.dispatch import Call, Dispatcher

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
ACTIVE = ActiveAlias(model="churn", alias="champion", version=1, digest=DIGEST, since=1.0)


class ReachedError(Exception):
    """The call has got as far as the resident set."""


class FakeResidents:
    def try_lease(self, key, body_bytes):
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


def dispatcher_on(of, load_budget_s=60.0):
    residents: Any = FakeResidents()
    return Dispatcher(
        of,
        residents,
        LiveTallies(),
        request_timeout_s=1.0,
        load_budget_s=load_budget_s,
        max_waiting=100,
    )


def predict(of, selector="champion", load_budget_s=60.0):
    return asyncio.ensure_future(dispatcher_on(of, load_budget_s).predict(a_call(selector)))


def a_call(selector="champion", body=b"{}", seconds=None):
    return Call(
        model="churn",
        selector=parse_selector(selector) if selector else None,
        also=None,
        protocol="predict",
        content_type="application/json",
        content_encoding="",
        request_id="r",
        body=body,
        place=Admission(max_in_flight=9, max_in_flight_bytes=999).enter(len(body)),
        deadline=time.monotonic() + seconds if seconds is not None else None,
    )


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
    monkeypatch.setattr(dispatch, "_WANTED_S", 0.01)
    at = failing_node()
    with pytest.raises(ModelLoadFailedError, match="no connection"):
        await predict(at, "1")
    assert [(one.model, one.version) for one in at.wanted()] == [("churn", 1)]
    async with asyncio.timeout(10):
        while at.wanted():
            await at.next_change()


async def test_what_could_not_be_fetched_is_wanted_again_by_the_next_call(monkeypatch):
    monkeypatch.setattr(dispatch, "_WANTED_S", 0.01)
    at = failing_node()
    dispatcher = dispatcher_on(at)
    for _ in range(2):
        with pytest.raises(ModelLoadFailedError):
            await dispatcher.predict(a_call("1"))
        assert wanted(at) == [1]
        async with asyncio.timeout(10):
            while at.wanted():
                await at.next_change()


# --- callers by number whose version's copy was dropped -------------------------------------------


class Siblings:
    """Workers of a version whose copy is gone."""

    def __init__(self, digest=DIGEST):
        self.key = ReplicaKey("churn", 1, digest)
        self.track_record = SimpleNamespace(expected_load_s=lambda key: 1.0)

    def is_ready(self, key):
        return key == self.key

    def try_lease(self, key, body_bytes):
        raise ReachedError(key)


def dropped(state=VersionState.FETCHING, **known):
    """A node whose copy of version 1 is gone: it has no digest, and must be `DIGEST`."""
    known = {"expected_digest": DIGEST, "reason": "no connection", **known}
    known = {"accepted_digest": DIGEST, **known}
    version = CatalogueVersion(version=1, state=state, **known)
    model = CatalogueModel(name="churn", versions=[version], aliases={"champion": 1})
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[model]))
    return Node(node_id="n", boot_id="b", table=table)


def predict_on(of, residents: Any, selector="1", *, also=None, load_budget_s=60.0):
    call = a_call(selector)
    call.also = parse_selector(also) if also else None
    dispatcher = dispatcher_on(of, load_budget_s)
    dispatcher._residents = residents
    return dispatcher.predict(call)


@pytest.mark.parametrize(
    "state", [VersionState.REGISTERED, VersionState.FETCHING, VersionState.FAILED]
)
async def test_healthy_workers_serve_while_their_copy_is_fetched_again(state):
    at = dropped(state)
    with pytest.raises(ReachedError) as reached:
        await predict_on(at, Siblings())
    assert reached.value.args == (ReplicaKey("churn", 1, DIGEST),)
    assert wanted(at) == [1], "else nobody would fetch it for callers by number"


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
async def test_no_worker_serves_that_may_not_be(state, known):
    at = dropped(state, **known)
    with pytest.raises(GatewayError):
        await predict_on(at, Siblings(), load_budget_s=0.01)


@pytest.mark.parametrize(("selector", "also"), [("champion", None), ("1", "champion")])
async def test_no_worker_serves_an_alias_before_it_is_activated(selector, also):
    with pytest.raises(ModelLoadFailedError, match="no connection"):
        await predict_on(dropped(VersionState.FAILED), Siblings(), selector, also=also)


class Unloadable:
    """Finds the copy of every version altered."""

    def try_lease(self, key, body_bytes):
        return None

    async def lease(self, key):
        raise ModelLoadFailedError("version 1 failed to load")


@pytest.mark.parametrize(
    ("state", "expected", "told"),
    [
        (VersionState.AVAILABLE, DIGEST, "the control plane fetches it again"),
        (VersionState.DELETED, DIGEST, "the registry no longer has version 1"),
        (VersionState.QUARANTINED, DIGEST, "version 1 may not serve: wrong bytes"),
        (VersionState.AVAILABLE, OTHER, "version 1 has other bytes in the registry now"),
    ],
)
async def test_a_fetch_is_promised_only_where_there_will_be_one(state, expected, told):
    at = dropped(state, digest=DIGEST, expected_digest=expected, reason="wrong bytes")
    at.replace(at.table.with_active(ACTIVE))
    at.copy_damaged("churn", 1, DIGEST, "altered")
    with pytest.raises(ModelLoadFailedError, match=told) as refused:
        await predict_on(at, Unloadable())
    promised = "the control plane fetches it again" in refused.value.message
    assert promised is (told == "the control plane fetches it again")


# --- callers of an alias whose bytes are not here -------------------------------------------------


def absent(aspired=1, *, here=()):
    """A catalogue whose alias is at a version that is not active, and perhaps not here."""
    versions = [
        CatalogueVersion(
            version=number,
            state=VersionState.AVAILABLE if number in here else VersionState.REGISTERED,
            digest=DIGEST if number in here else None,
        )
        for number in (1, 2)
    ]
    model = CatalogueModel(name="churn", versions=versions, aliases={"champion": aspired})
    return Catalogue(writer="w", epoch=1, models=[model])


def waiting_node(aspired=1):
    return Node(node_id="n", boot_id="b", table=RouteTable("champion", catalogue=absent(aspired)))


def wanted(of):
    return [one.version for one in of.wanted()]


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("selector", ["champion", None])
async def test_who_waits_for_an_alias_wants_it_until_it_is_active(selector):
    at = waiting_node()
    call = predict(at, selector)
    await turns()
    assert wanted(at) == [1]
    at.replace(at.table.with_catalogue(absent(here=(1,))))
    await turns()
    assert (wanted(at), call.done()) == ([1], False), "it is to be staged and activated, too"
    assert [one.alias for one in at.wanted()] == ["champion"]
    at.replace(at.table.with_active(ACTIVE))
    assert wanted(at) == []
    with pytest.raises(ReachedError):
        await call


async def test_what_is_wanted_moves_with_the_alias():
    at = waiting_node()
    call = predict(at)
    await turns()
    at.replace(at.table.with_catalogue(absent(2)))
    await turns()
    assert wanted(at) == [2]
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert wanted(at) == []


async def test_a_wish_is_one_wish_until_the_last_who_waits_has_left():
    at = waiting_node()
    dispatcher = dispatcher_on(at)
    calls = [asyncio.ensure_future(dispatcher.predict(a_call())) for _ in range(3)]
    await turns()
    since = at.wanted()
    for call in calls[:2]:
        call.cancel()
    await asyncio.gather(*calls[:2], return_exceptions=True)
    for _ in range(3):
        at.changed()  # news of something else
        await turns()
    assert at.wanted() == since != []
    calls[2].cancel()
    await asyncio.gather(calls[2], return_exceptions=True)
    assert wanted(at) == []


async def test_those_who_wait_for_different_aliases_do_not_wake_each_other_for_ever():
    at = waiting_node()
    other = absent().models[0].model_copy(update={"name": "wine"})
    both = absent().model_copy(update={"models": [*absent().models, other]})
    at.replace(at.table.with_catalogue(both))
    dispatcher = dispatcher_on(at)
    second = a_call()
    second.model = "wine"
    calls = [asyncio.ensure_future(dispatcher.predict(one)) for one in (a_call(), second)]
    await turns(20)
    before = at.seq
    await turns(50)
    assert at.seq == before
    assert [(one.model, one.version) for one in at.wanted()] == [("churn", 1), ("wine", 1)]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_call_that_waits_too_long_for_an_alias_wants_nothing_any_more():
    at = waiting_node()
    with pytest.raises(ModelLoadingError):
        await predict(at, load_budget_s=0.01)
    assert wanted(at) == []


async def test_who_gives_up_is_told_of_the_queue_that_it_would_join():
    """Others wait, and their wishes are met one every five seconds."""
    now, at = [0.0], waiting_node()
    at._monotonic = lambda: now[0]
    for number in range(40):
        at.want(f"m{number}", 1, "champion")
    for number in range(10):
        now[0] += 5.0
        entry = ACTIVE.model_copy(update={"model": f"m{number}"})
        at.replace(at.table.with_active(entry))
    assert len(wanted(at)) == 30
    with pytest.raises(ModelLoadingError) as late:
        await predict(at, load_budget_s=0.01)
    assert late.value.retry_after_s == pytest.approx(31 * 5.0)


async def test_without_a_queue_the_next_try_is_soon():
    with pytest.raises(ModelLoadingError) as late:
        await predict(waiting_node(), load_budget_s=0.01)
    assert late.value.retry_after_s == 2.0


async def test_what_cannot_be_fetched_ends_the_wait_for_its_alias():
    at = waiting_node()
    call = predict(at)
    await turns()
    model = absent().models[0]
    failed = CatalogueVersion(version=1, state=VersionState.FAILED, reason="no connection")
    news = model.model_copy(update={"versions": [failed]})
    at.replace(at.table.with_catalogue(Catalogue(writer="w", epoch=2, models=[news])))
    with pytest.raises(ModelLoadFailedError, match="no connection"):
        await call
    assert [(one.version, one.alias) for one in at.wanted()] == [(1, None)], "as of any such call"


class FakeReplica:
    """Takes requests and keeps them."""

    def __init__(self):
        self.taken, self.answers = [], []

    def submit(self, header, body, *, timeout_s, limit_s, on_done, answer_type):
        self.taken.append((timeout_s, limit_s, on_done))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


class FakeLease:
    def __init__(self):
        self.replica, self.released = FakeReplica(), 0
        self.resident = SimpleNamespace(key=ReplicaKey("churn", 1, DIGEST))

    def release(self):
        self.released += 1


class OneLease:
    def __init__(self):
        self.one, self.asked_bytes = FakeLease(), []

    def try_lease(self, key, body_bytes):
        self.asked_bytes.append(body_bytes)
        return self.one


def active():
    at = node()
    at.replace(at.table.with_active(ACTIVE))
    return at


async def test_a_callers_time_covers_the_wait_for_a_version():
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        await dispatcher_on(node()).predict(a_call(seconds=0.1))
    assert time.monotonic() - began < 10


async def test_a_call_whose_time_is_over_is_not_begun():
    with pytest.raises(DeadlineExceededError):
        await dispatcher_on(active()).predict(a_call(seconds=0))


@pytest.mark.parametrize(("given", "expected"), [(None, 1.0), (0.5, 0.5), (500, 1.0)])
async def test_a_callers_time_is_cut_to_the_models(given, expected):
    residents: Any = OneLease()
    dispatcher = Dispatcher(
        active(), residents, LiveTallies(), request_timeout_s=1.0, load_budget_s=60.0, max_waiting=9
    )
    asking = asyncio.ensure_future(dispatcher.predict(a_call(seconds=given)))
    await asyncio.sleep(0)
    [(timeout_s, limit_s, _)] = residents.one.replica.taken
    assert timeout_s == pytest.approx(expected, abs=0.2)
    assert limit_s == 1.0
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_lease_and_place_are_the_workers_until_it_lets_go():
    residents: Any = OneLease()
    dispatcher = Dispatcher(
        active(), residents, LiveTallies(), request_timeout_s=1.0, load_budget_s=60.0, max_waiting=9
    )
    admission = Admission(max_in_flight=9, max_in_flight_bytes=999)
    call = a_call(seconds=0.05)
    call.place = admission.enter(2)
    with pytest.raises(DeadlineExceededError):
        await dispatcher.predict(call)
    call.place.let_go()  # the caller has been answered
    assert (admission.in_flight, residents.one.released) == (1, 0)
    on_done = residents.one.replica.taken[0][2]
    on_done()
    assert (admission.in_flight, residents.one.released) == (0, 1)


@pytest.mark.parametrize("seconds", [None, 0.05])
async def test_a_lease_is_asked_for_with_the_size_of_the_body(seconds):
    residents: Any = OneLease()
    dispatcher = Dispatcher(
        active(), residents, LiveTallies(), request_timeout_s=1.0, load_budget_s=60.0, max_waiting=9
    )
    call = a_call(body=b"x" * 700, seconds=seconds)
    told: list[Any] = []
    dispatcher.begin(call, told.append)
    async with asyncio.timeout(10):
        while not residents.asked_bytes:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
    assert residents.asked_bytes == [700]
    call.leave()


async def test_a_worker_that_never_had_it_keeps_nothing():
    residents: Any = OneLease()

    def refuse(*_, **__):
        raise NotDeliveredError

    residents.one.replica.submit = refuse
    dispatcher = Dispatcher(
        active(), residents, LiveTallies(), request_timeout_s=1.0, load_budget_s=60.0, max_waiting=9
    )
    admission = Admission(max_in_flight=9, max_in_flight_bytes=999)
    call = a_call()
    call.place = admission.enter(2)
    with pytest.raises(WorkerDiedError):
        await dispatcher.predict(call)
    call.place.let_go()
    assert (admission.in_flight, residents.one.released) == (0, 3)


async def test_a_call_that_its_worker_does_not_take_goes_to_another_worker():
    """It was ready when the lease was taken, and is not by now."""
    residents: Any = OneLease()
    replica = residents.one.replica
    taken = replica.submit

    def refuse(*_, **__):
        replica.submit = taken
        raise NotDeliveredError

    replica.submit = refuse
    dispatcher = Dispatcher(
        active(), residents, LiveTallies(), request_timeout_s=1.0, load_budget_s=60.0, max_waiting=9
    )
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    dispatcher.begin(a_call(), told.set_result)
    async with asyncio.timeout(10):
        while not replica.answers:  # noqa: ASYNC110  # one turn of the loop
            await asyncio.sleep(0)
        replica.answers[0].set_result("the reply")
        assert (await told).result() == "the reply"


async def test_a_call_that_its_worker_had_not_begun_goes_to_another_worker():
    residents: Any = OneLease()
    dispatcher = Dispatcher(
        active(), residents, LiveTallies(), request_timeout_s=1.0, load_budget_s=60.0, max_waiting=9
    )
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    dispatcher.begin(a_call(), told.set_result)
    answers = residents.one.replica.answers
    answers[0].set_exception(NotDeliveredError())
    async with asyncio.timeout(10):
        while len(answers) < 2:  # noqa: ASYNC110  # one turn of the loop
            await asyncio.sleep(0)
        answers[1].set_result("the reply")
        assert (await told).result() == "the reply"


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("given", [("champion", "1"), ("1", "champion")])
async def test_an_alias_and_a_number_that_mean_two_creations_of_a_version_conflict(here, given):
    at = node()
    at.replace(at.table.with_active(ACTIVE))
    call = replace(a_call(given[0]), also=parse_selector(given[1]))
    assert dispatcher_on(at).resolve(call).digest == DIGEST
    anew = CatalogueVersion(
        version=1,
        state=VersionState.AVAILABLE if here else VersionState.REGISTERED,
        digest=OTHER if here else None,
        accepted_digest=OTHER if here else None,
    )
    model = CatalogueModel(name="churn", versions=[anew], aliases={"champion": 1})
    at.replace(at.table.with_catalogue(Catalogue(writer="w", epoch=2, models=[model])))
    with pytest.raises(VersionConflictError, match="version 1: it was made anew"):
        dispatcher_on(at).resolve(call)
