"""With a thousand versions, metrics, catalogue changes and pages give others a turn all the time.

Each is compared with itself: the longest time in which nobody else had a turn, with all of it.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

from gateway.contract.catalogue import Catalogue, CatalogueModel, CatalogueVersion, VersionState
from gateway.observability.exposition import exposition
from gateway.observability.metrics import NO_MODEL, Telemetry
from gateway.routing.lazy_versions import ListedVersions
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from tests.unit.gateway.http.test_catalogue import pages_of

VERSIONS = 1000


def called(versions: int = VERSIONS) -> Telemetry:
    """Metrics of a gateway of which every version was loaded and called, and has failed once."""
    telemetry = Telemetry()
    for number in range(1, versions + 1):
        labels = ("churn", str(number))
        telemetry.series("churn", number).requests.inc(number)
        telemetry.series("churn", number).latency.observe(number / 100)
        telemetry.errors.labels(*labels, "model_error").inc()
        telemetry.loads.labels(*labels).inc()
        telemetry.load_seconds.labels(*labels).observe(2)
    telemetry.errors.labels(NO_MODEL, NO_MODEL, "model_not_found").inc()
    telemetry.swaps.labels("churn", "champion").inc()
    return telemetry


async def share_without_a_turn(work: Callable[[], Awaitable[Any]]) -> float:
    """Return the longest pause between two turns of somebody else, as a share of the work's time.

    The best of five: a pause of the machine is nobody's fault.
    """

    async def others() -> float:
        longest, last = 0.0, time.perf_counter()
        while not done:
            await asyncio.sleep(0)
            longest, last = max(longest, (now := time.perf_counter()) - last), now
        return longest

    shares = []
    gc.collect()
    gc.freeze()
    try:
        for _ in range(5):
            done = False
            began = time.perf_counter()
            running = asyncio.create_task(others())
            await asyncio.sleep(0)
            await work()
            done = True
            took = time.perf_counter() - began
            shares.append(await running / took)
    finally:
        gc.unfreeze()
    return min(shares)


@pytest.mark.parametrize("versions", [0, 3])
async def test_metrics_are_written_as_prometheus_client_writes_them(versions: int) -> None:
    telemetry = called(versions)
    telemetry.workers.labels('a "state"\n').set(2)
    text = await exposition(telemetry.metrics())
    assert text == generate_latest(telemetry.registry)
    assert b"_created" not in text
    assert text.count(b"gateway_request_seconds_bucket") == 17 * versions


async def test_a_scrape_gives_others_a_turn() -> None:
    telemetry = called()
    assert await share_without_a_turn(lambda: exposition(telemetry.metrics())) < 0.1


async def test_looking_for_what_is_listed_no_longer_gives_others_a_turn() -> None:
    telemetry = called()
    assert await share_without_a_turn(lambda: telemetry.forget_all_but(lambda *_: True)) < 0.5


async def test_what_is_listed_no_longer_is_forgotten() -> None:
    telemetry = called(9)
    await telemetry.forget_all_but(lambda _, version: version in {None, 7, 9})
    text = (await exposition(telemetry.metrics())).decode()
    for metric in ("requests_total", "request_seconds_count", "loads_total", "load_seconds_count"):
        lines = [line for line in text.splitlines() if line.startswith(f"gateway_{metric}{{")]
        assert [line.split('version="')[1].split('"')[0] for line in lines] == ["7", "9"]
    assert 'code="model_not_found"' in text
    assert 'alias="champion"' in text
    await telemetry.forget_all_but(lambda *_: False)
    assert "churn" not in (await exposition(telemetry.metrics())).decode()


async def test_a_version_that_is_listed_again_meanwhile_is_counted_from_then_on() -> None:
    telemetry, listed = called(2), False

    def known(_: str, version: int | None) -> bool:
        nonlocal listed
        if version == 2 and not listed:  # its requests: those of version 1 were forgotten before
            listed = True
            telemetry.series("churn", 1).requests.inc(3)
        return listed

    await telemetry.forget_all_but(known)
    telemetry.series("churn", 1).requests.inc(4)
    text = (await exposition(telemetry.metrics())).decode()
    assert 'gateway_requests_total{model="churn",version="1"} 7.0' in text


@pytest.fixture
async def page() -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    versions = ListedVersions(
        CatalogueVersion(version=number, state=VersionState.REGISTERED)
        for number in range(1, VERSIONS + 1)
    )
    model = CatalogueModel(name="churn", versions=[], aliases={"champion": 1})
    model = model.model_copy(update={"versions": versions})
    catalogue = Catalogue(writer="w", epoch=1, models=[])
    table = RouteTable("champion").with_catalogue(catalogue.model_copy(update={"models": [model]}))
    async with pages_of(Node(node_id="n", boot_id="b", table=table)) as client:
        yield lambda: client.get("/models/churn")


async def test_the_page_of_a_model_gives_others_a_turn(page: Any) -> None:
    body = (await page()).json()
    assert [one["version"] for one in body["versions"]] == list(range(1, VERSIONS + 1))
    assert list(body) == [
        "name", "href", "default", "aliases", "problems", "policy", "generation", "registry",
        "versions",
    ]  # fmt: skip
    assert await share_without_a_turn(page) < 0.5
