"""A promotion told by MLflow's own webhook, and one that waits for a poll; and who is not told."""

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from registry_sync.operations.listeners import MAX_WEBHOOK_BYTES
from registry_sync.operations.webhooks.authentication import MLFLOW_HEADERS, WINDOW_S, sign
from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import (
    HINT_LIMIT_S,
    HINTED_PROMOTIONS,
    LOAD_LIMIT_S,
    POLL_S,
    POLLED_PROMOTIONS,
    REPEATED_DELIVERIES,
)
from tests.acceptance.traffic import Answer, Traffic, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel
from tests.servers import free_ports

ALIAS = "champion"
SECRET = "what MLflow and the control plane know"
TOKEN = "what operators know"
NEVER_S = "86400"
POLL_JITTER = 1.1
SENDERS = 4
MAX_GROWTH_BYTES = 8 * 2**20
EVENTS = [
    "model_version.created",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "model_version_tag.set",
    "model_version_tag.deleted",
]


@pytest.fixture(scope="module")
def hinted(make_module_node: NodeMaker) -> tuple[Node, str]:
    """A node, not started yet, that polls once, at its start, and its operations listener's URL."""
    port = free_ports(1)[0]
    settings = {
        "REGISTRY_SYNC_POLL_INTERVAL_S": NEVER_S,
        "REGISTRY_SYNC_OPERATIONS_PORT": str(port),
        "REGISTRY_SYNC_OPERATIONS_TOKEN": TOKEN,
        "REGISTRY_SYNC_MLFLOW_WEBHOOK_SECRET": SECRET,
    }
    return make_module_node(control=settings), f"http://127.0.0.1:{port}"


@contextmanager
def webhook(registry: Registry, url: str, secret: str = SECRET) -> Iterator[str]:
    """A webhook of the MLflow server, as the README registers it; its id."""
    made = registry.client.create_webhook(
        name=f"gateway-{uuid.uuid4().hex[:8]}",
        url=f"{url}/webhooks/mlflow",
        events=EVENTS,
        secret=secret,
    )
    try:
        yield made.webhook_id
    finally:
        registry.client.delete_webhook(made.webhook_id)


async def listens(http: httpx.AsyncClient, url: str) -> None:
    """Wait until the operations listener answers."""

    async def look() -> bool:
        try:
            return (await http.get(f"{url}/webhooks/mlflow")).status_code == 405
        except httpx.TransportError:
            return False

    await eventually(look, "the operations listener answers")


@asynccontextmanager
async def calling(node: Node, model: str) -> AsyncIterator[Traffic]:
    """One caller by alias, whose every answer must be right."""
    async with client(1) as http:
        callers = [asks(model, f"@{ALIAS}")]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            yield traffic
    wrong = [answer for answer in traffic.answers if not answer.ok]
    assert not wrong, describe(wrong)
    versions = {answer.version or 0 for answer in traffic.answers}
    expected = {version: row_answers(float(version)) for version in versions}
    for answer in traffic.answers:
        assert answer.predictions == [expected[answer.version or 0][answer.call.row]], answer


async def promote(registry: Registry, model: str, version: int, traffic: Traffic) -> float:
    """Move the alias; seconds from the end of that call to the first answer by the version."""

    def first() -> Answer | None:
        answers = traffic.answers[known:]
        return next((answer for answer in answers if answer.version == version), None)

    known = len(traffic.answers)
    await asyncio.to_thread(registry.point, model, ALIAS, version)
    returned_at = time.monotonic()
    answer = await eventually_true(first, f"version {version} answers", patience_s=180)
    return max(0.0, answer.done_at - returned_at)


def report(what: str, seconds: list[float]) -> float:
    """Print how long promotions took; the median."""
    median = statistics.median(seconds)
    print(f"{what}: median {median:.2f} s of", ", ".join(f"{one:.2f}" for one in seconds))
    return median


async def synced(node: Node, model: str) -> None:
    """Have the registry listed, and wait until it is."""
    done = await asyncio.to_thread(node.command, "sync", model)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_promotion_that_mlflow_tells_of_is_followed_at_once(
    hinted: tuple[Node, str], registry: Registry
) -> None:
    node, url = hinted
    model = registry.name("told")
    registry.publish(model, LinearModel(1.0))
    registry.point(model, ALIAS, 1)
    node.start()
    async with client(2) as http:
        await listens(http, url)
        await synced(node, model)
        await node.active(http, model, ALIAS, 1)
        with webhook(registry, url) as told:
            tested = await asyncio.to_thread(registry.client.test_webhook, told)
            assert (tested.success, tested.response_status) == (True, 202), tested
            await delivers(http, url, registry, model)
            new, known = [], []
            async with calling(node, model) as traffic:
                for number in range(2, HINTED_PROMOTIONS + 2):
                    version = await asyncio.to_thread(
                        registry.publish, model, LinearModel(float(number))
                    )
                    assert version == number
                    new.append(await promote(registry, model, version, traffic))
                for number in range(HINTED_PROMOTIONS):
                    version = HINTED_PROMOTIONS + number % 2
                    known.append(await promote(registry, model, version, traffic))
            slow = max(report("just registered", new), report("known", known))
    assert slow < HINT_LIMIT_S
    status = node.command("status")
    assert "webhook mlflow: " in status.stdout, status.stdout + status.stderr
    assert " refused" not in status.stdout, status.stdout
    moves = [one for one in await history(node, model) if one["what"] == "activate"]
    assert {one["asked_by"] for one in moves if one["version"] > 1} == {"webhook"}, moves


async def test_who_is_not_mlflow_is_refused_and_a_repeated_delivery_changes_nothing(
    hinted: tuple[Node, str], registry: Registry, mlflow_root: Path
) -> None:
    node, url = hinted
    model = registry.name("repeated")
    registry.publish(model, LinearModel(1.0))
    registry.point(model, ALIAS, 1)
    node.start()
    assert node.control is not None
    async with client(SENDERS) as http:
        await listens(http, url)
        for _ in range(2):  # at the second, models of an earlier test that are gone are given up
            await synced(node, model)
        await node.active(http, model, ALIAS, 1)
        with webhook(registry, url, "another secret") as stranger:
            tested = await asyncio.to_thread(registry.client.test_webhook, stranger)
            assert (tested.success, tested.response_status) == (False, 401), tested
        await assert_refused(http, url, model)
        asked = calls(mlflow_root)
        delivery = Delivery(model, int(time.time()))
        assert await deliver(http, url, delivery) == 202

        await eventually_true(
            lambda: calls(mlflow_root) > asked, "the first delivery has its effect"
        )
        await repeat(http, url, delivery, REPEATED_DELIVERIES // 10)
        await synced(node, model)  # the look that the first delivery began is over
        control = psutil.Process(node.control.pid)
        before = (control.memory_info().rss, control.num_fds(), control.num_threads())
        asked, shown = calls(mlflow_root), await node.model(http, model)
        began_at = time.monotonic()
        await repeat(http, url, delivery, REPEATED_DELIVERIES)
        took_s = time.monotonic() - began_at
        after = (control.memory_info().rss, control.num_fds(), control.num_threads())
        print(f"{REPEATED_DELIVERIES} repeats in {took_s:.1f} s: {before} → {after}")
        assert calls(mlflow_root) == asked
        assert await node.model(http, model) == shown
        assert after[0] - before[0] < MAX_GROWTH_BYTES
        assert after[1] <= before[1], "file descriptors"
        assert after[2] <= before[2], "threads"


@pytest.mark.soak(
    "unit/registry_sync/reconcile/test_schedule.py",
    "unit/registry_sync/reconcile/reconciler/test_work_per_change.py",
)
async def test_without_a_webhook_a_promotion_waits_for_a_poll(
    hinted: tuple[Node, str], registry: Registry
) -> None:
    node, _ = hinted
    model = registry.name("untold")
    for slope in (1.0, 2.0):
        registry.publish(model, LinearModel(slope))
    registry.point(model, ALIAS, 1)
    node.stop_control()
    node.start_control({"REGISTRY_SYNC_POLL_INTERVAL_S": str(POLL_S)})
    node.start()
    async with client(2) as http:
        await node.active(http, model, ALIAS, 1)
    async with calling(node, model) as traffic:
        took = [
            await promote(registry, model, 2 - number % 2, traffic)
            for number in range(POLLED_PROMOTIONS)
        ]
    report(f"polled every {POLL_S:g} s", took)
    assert max(took) < POLL_S * POLL_JITTER + LOAD_LIMIT_S
    moves = [one for one in await history(node, model) if one["what"] == "activate"]
    assert {one["asked_by"] for one in moves} == {"poll"}, moves


async def assert_refused(http: httpx.AsyncClient, url: str, model: str) -> None:
    """Forged, stale and oversized."""
    now = int(time.time())
    assert await deliver(http, url, Delivery(model, now, secret="a guess")) == 401
    assert await deliver(http, url, Delivery(model, now - WINDOW_S - 60)) == 401
    assert await deliver(http, url, Delivery(model, now, padding=MAX_WEBHOOK_BYTES)) == 413


@dataclass(frozen=True)
class Delivery:
    """What MLflow would send of an alias, signed with an id of its own."""

    model: str
    sent_at: int
    secret: str = SECRET
    padding: int = 0
    delivery_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def body(self) -> bytes:
        data = {"name": self.model, "alias": ALIAS, "version": "1"}
        event = {"entity": "model_version_alias", "action": "created", "data": data}
        return json.dumps(event).encode() + b" " * self.padding

    @property
    def headers(self) -> dict[str, str]:
        signed = (self.delivery_id.encode(), str(self.sent_at).encode(), self.body)
        return {
            MLFLOW_HEADERS.delivery_id: self.delivery_id,
            MLFLOW_HEADERS.timestamp: str(self.sent_at),
            MLFLOW_HEADERS.signature: sign(self.secret.encode(), *signed).decode(),
        }


async def deliver(http: httpx.AsyncClient, url: str, delivery: Delivery) -> int:
    """Post a delivery; the status."""
    answer = await http.post(
        f"{url}/webhooks/mlflow", content=delivery.body, headers=delivery.headers
    )
    return answer.status_code


async def repeat(http: httpx.AsyncClient, url: str, delivery: Delivery, times: int) -> None:
    """Send one delivery again and again, over a few connections."""

    async def send() -> None:
        for _ in range(times // SENDERS):
            assert await deliver(http, url, delivery) == 202

    async with asyncio.TaskGroup() as tasks:
        for _ in range(SENDERS):
            tasks.create_task(send())


def calls(mlflow_root: Path) -> int:
    """How often the MLflow server was asked for anything of its registry, by its access log."""
    log = (mlflow_root / "mlflow.log").read_text(errors="replace")
    return log.count("/mlflow/registered-models/") + log.count("/mlflow/model-versions/")


async def taken(http: httpx.AsyncClient, url: str) -> int:
    """How many deliveries of MLflow the control plane has taken."""
    answer = await http.get(f"{url}/state", headers={"authorization": f"Bearer {TOKEN}"})
    webhooks = {one["name"]: one for one in answer.json()["webhooks"]}
    return int(webhooks["mlflow"]["accepted"])


async def delivers(http: httpx.AsyncClient, url: str, registry: Registry, model: str) -> None:
    """Wait until the MLflow server has noticed its new webhook: it caches the list."""
    before = await taken(http, url)

    async def look() -> bool:
        await asyncio.to_thread(
            registry.client.set_model_version_tag, model, "1", "told", str(time.monotonic())
        )
        return await taken(http, url) > before

    await eventually(look, "MLflow sends its webhook", look_every_s=0.5)


async def history(node: Node, model: str) -> list[dict[str, Any]]:
    told = await node.operations("GET", "/history", model=model, limit="500")
    entries: list[dict[str, Any]] = told["entries"]
    return entries
