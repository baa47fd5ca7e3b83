"""Who is let in by the operations listener, and what a delivery makes the control plane do."""

import asyncio
import contextlib
import gzip
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract import to_rfc3339
from gateway.system.http1.connections import ConnectionLimits
from gateway.system.node_identity import StartError
from registry_sync.operations.app import Operations, create_app
from registry_sync.operations.listeners import (
    MAX_WEBHOOK_BYTES,
    TCP_LIMITS,
    OperationsService,
    tcp_server,
    tcp_socket,
)
from registry_sync.operations.webhooks.authentication import (
    MAX_REMEMBERED,
    MLFLOW_HEADERS,
    RELOAD_HEADERS,
    WINDOW_S,
    NotAuthenticError,
    SignatureHeaders,
    SigningSender,
    sign,
)
from registry_sync.operations.webhooks.routes import WebhookSecrets, build_webhooks
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory
from tests.fakes.wire import PATIENCE_S, WireTransport, connect

NOW = 1_795_226_549
SECRET = "the secret of a webhook"
SECRETS = WebhookSecrets(mlflow=SECRET, s3="a token of S3", reload="another secret")
EVENT = {
    "entity": "model_version_alias",
    "action": "created",
    "timestamp": "2026-11-21T02:02:18.677315+00:00",
    "data": {"name": M, "alias": A, "version": "1"},
}
REPEATS = 10_000


class Hinted(list[str | None]):
    """What was hinted at."""

    def __call__(self, model: str | None) -> None:
        self.append(model)


@contextlib.asynccontextmanager
async def posting(
    hint: Callable[[str | None], None],
    *,
    secrets: WebhookSecrets = SECRETS,
    tracking_uri: str = "http://registry",
    operators: Any = None,
    token: str = "",
) -> AsyncIterator[httpx.AsyncClient]:
    webhooks = build_webhooks(secrets, hint=hint, tracking_uri=tracking_uri, clock=lambda: NOW)
    service = OperationsService(webhooks=webhooks, operators=operators, token=token)
    async with httpx.AsyncClient(
        transport=WireTransport(service, whole=False), base_url="http://control-plane"
    ) as client:
        yield client


async def post(
    name: str, body: bytes, headers: dict[str, str], **options: Any
) -> tuple[httpx.Response, Hinted]:
    """Post one delivery; return the answer, and the hints."""
    hinted = Hinted()
    async with posting(hinted, **options) as client:
        return await client.post(f"/webhooks/{name}", content=body, headers=headers), hinted


def signed(
    body: bytes,
    *,
    secret: str = SECRET,
    names: SignatureHeaders = MLFLOW_HEADERS,
    delivery_id: str | None = None,
    timestamp: int = NOW,
) -> dict[str, str]:
    """The headers of a delivery."""
    delivery_id = delivery_id or str(uuid.uuid4())
    signature = sign(secret.encode(), delivery_id.encode(), str(timestamp).encode(), body)
    return {
        names.delivery_id: delivery_id,
        names.timestamp: str(timestamp),
        names.signature: signature.decode(),
        "content-type": "application/json",
    }


def event(**changed: Any) -> bytes:
    return json.dumps(EVENT | changed).encode()


# --- who is believed ------------------------------------------------------------------------------


def test_the_signature_is_what_mlflow_sends() -> None:
    # Made by mlflow.webhooks.delivery._generate_hmac_signature of MLflow 3.17.2.
    body = b'{"entity": "model_version_alias", "data": {"name": "caf\\u00e9"}}'
    delivery_id = b"9c19ce26-ac47-4519-8e50-6686500816ea"
    assert (
        sign("s\u00e9cret".encode(), delivery_id, b"1795226549", body)
        == b"v1,D/Sauu2tw4VlvVAsMv6Tk82CNuXYmq35XJBMecCnGyw="
    )


def forged(body: bytes) -> dict[str, str]:
    return signed(body, secret="a guess")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda body: signed(body, secret="a guess"), "another secret"),
        (lambda body: signed(body + b" "), "altered"),
        (lambda body: signed(body, timestamp=NOW - WINDOW_S - 1), "within 300 s"),
        (lambda body: signed(body, timestamp=NOW + WINDOW_S + 1), "within 300 s"),
        (
            lambda body: (
                signed(body, timestamp=NOW - WINDOW_S - 1) | {MLFLOW_HEADERS.timestamp: str(NOW)}
            ),
            "does not match",
        ),
        (lambda body: signed(body) | {MLFLOW_HEADERS.delivery_id: "another"}, "does not match"),
        (lambda _: {}, "x-mlflow-delivery-id is missing"),
        (lambda body: signed(body) | {MLFLOW_HEADERS.timestamp: "now"}, "whole number"),
        (lambda body: signed(body) | {MLFLOW_HEADERS.timestamp: "9" * 5000}, "whole number"),
        (lambda body: signed(body, delivery_id="x" * 200), "at most 128 bytes"),
        (lambda body: {**signed(body), MLFLOW_HEADERS.signature: b"v1,\xff\xfe"}, "does not match"),
    ],
)
async def test_what_mlflow_has_not_just_sent_is_refused(
    changed: Callable[[bytes], dict[str, str]], reason: str
) -> None:
    body = event()
    answer, hinted = await post("mlflow", body, changed(body))
    assert (answer.status_code, hinted) == (401, [])
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_authentic"
    assert reason in answer.json()["detail"]
    assert SECRET not in answer.text


@pytest.mark.parametrize("age_s", [WINDOW_S, 0, -WINDOW_S])
async def test_a_timestamp_inside_the_window_is_fresh(age_s: int) -> None:
    body = event()
    headers = signed(body, timestamp=NOW - age_s)
    answer, hinted = await post("mlflow", body, headers)
    assert (answer.status_code, hinted) == (202, [M])


def shown(body: bytes) -> dict[str, dict[str, str]]:
    """What each sender shows with a body."""
    return {
        "mlflow": signed(body),
        "s3": {"authorization": f"Bearer {SECRETS.s3}"},
        "reload": signed(body, secret=SECRETS.reload, names=RELOAD_HEADERS),
    }


@pytest.mark.parametrize("name", ["mlflow", "s3", "reload"])
async def test_a_stranger_is_refused_by_the_head(name: str) -> None:
    """The body never comes, and is not waited for."""
    hinted = Hinted()
    webhooks = build_webhooks(
        SECRETS, hint=hinted, tracking_uri="http://registry", clock=lambda: NOW
    )
    operators: Any = None
    service = OperationsService(webhooks=webhooks, operators=operators, token="right")
    old = signed(b"", names=RELOAD_HEADERS, timestamp=NOW - WINDOW_S - 1)
    heads: list[dict[str, str]] = [{}, {"authorization": "Bearer a guess"}, old]
    for headers in heads:
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        for path in (f"/webhooks/{name}", "/rollback"):
            wire = connect(service)
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{lines}content-length: 60000\r\n\r\n"
            wire.send(head.encode())
            assert (await wire.answered())[0] == 401, (path, headers)
            wire.close()
    (state,) = [one.state for one in webhooks if one.name == name]
    assert (state.refused, hinted) == (len(heads), [])


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1024):
        yield b"x" * 1024


@pytest.mark.parametrize("says_its_length", [True, False])
async def test_an_oversized_body_is_refused_however_it_comes(says_its_length: bool) -> None:
    hinted = Hinted()
    body = b"x" * (MAX_WEBHOOK_BYTES + 1024)
    content = body if says_its_length else in_pieces(len(body))
    async with posting(hinted) as client:
        for name, headers in shown(body).items():
            answer = await client.post(f"/webhooks/{name}", content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
            content = body if says_its_length else in_pieces(len(body))
    assert hinted == []


async def test_a_packed_body_is_refused_and_not_unpacked() -> None:
    body = gzip.compress(event())
    headers = signed(body) | {"content-encoding": "gzip"}
    answer, hinted = await post("mlflow", body, headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert hinted == []


@pytest.mark.parametrize("name", ["mlflow", "s3", "reload", "github"])
async def test_a_webhook_whose_secret_is_not_set_is_not_there(name: str) -> None:
    body = event()
    answer, hinted = await post(name, body, signed(body), secrets=WebhookSecrets())
    assert (answer.status_code, answer.json()["code"], hinted) == (404, "route_not_found", [])


async def test_a_webhook_is_posted() -> None:
    async with posting(Hinted()) as client:
        answer = await client.get("/webhooks/mlflow")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


# --- once -----------------------------------------------------------------------------------------


async def test_operators_see_what_a_webhook_was_sent(tmp_path: Path) -> None:
    node = NodeInMemory(tmp_path)
    async with node.control_plane():
        webhooks = build_webhooks(
            WebhookSecrets(mlflow=SECRET), hint=Hinted(), tracking_uri="", clock=lambda: NOW
        )
        operations = Operations(node.view, node.operators, "node", "http://registry", webhooks)
        service = OperationsService(webhooks=webhooks, operators=create_app(operations), token="t")
        async with httpx.AsyncClient(
            transport=WireTransport(service, whole=True),
            base_url="http://control-plane",
            headers={"authorization": "Bearer t"},
        ) as client:
            body = event()
            for headers in (forged(body), again := signed(body), again, again):
                await client.post("/webhooks/mlflow", content=body, headers=headers)
            state = (await client.get("/state")).json()
    (shown,) = state["webhooks"]
    assert "another secret" in shown.pop("refusal")
    assert shown == {
        "name": "mlflow",
        "accepted": 1,
        "accepted_at": to_rfc3339(NOW),
        "repeated": 2,
        "refused": 1,
        "refused_at": to_rfc3339(NOW),
    }


def sender(now: Callable[[], float] = lambda: NOW) -> SigningSender:
    return SigningSender(SECRET, MLFLOW_HEADERS, clock=now)


def deliver(to: SigningSender, delivery_id: str, timestamp: int) -> bool:
    """Whether a delivery has an effect."""
    delivery = to.check(signed(b"", delivery_id=delivery_id, timestamp=timestamp), b"")
    new = not to.has_accepted(delivery)
    to.accept(delivery)
    return new


def test_repeats_are_known_as_long_as_they_are_fresh_and_then_forgotten() -> None:
    now = NOW
    one = sender(lambda: now)
    assert deliver(one, "first", NOW)
    now += WINDOW_S
    assert not deliver(one, "first", NOW)
    now += 1
    with pytest.raises(NotAuthenticError):
        deliver(one, "first", NOW)
    assert deliver(one, "second", now)
    assert one.remembered == 1


def test_what_is_remembered_is_bounded_and_nothing_is_taken_twice_for_it() -> None:
    one = sender()
    for number in range(MAX_REMEMBERED + 500):
        assert deliver(one, str(number), NOW - 250 + number // 100)
    assert one.remembered == MAX_REMEMBERED
    for forgotten in (0, 250, 499):
        with pytest.raises(NotAuthenticError):
            deliver(one, str(forgotten), NOW - 250 + forgotten // 100)
    assert not deliver(one, "9000", NOW - 250 + 90)


def test_ten_thousand_repeats_are_remembered_as_one() -> None:
    one = sender()
    assert [deliver(one, "same", NOW) for _ in range(REPEATS)].count(True) == 1
    assert one.remembered == 1


async def test_a_delivery_that_failed_halfway_may_be_repeated() -> None:
    hinted = Hinted()

    def fails_once(model: str | None) -> None:
        if not hinted:
            hinted(None)
            raise ValueError("a fault")
        hinted(model)

    body = event()
    headers = signed(body)
    async with posting(fails_once) as client:
        failed = await client.post("/webhooks/mlflow", content=body, headers=headers)
        assert failed.status_code == 500
        answer = await client.post("/webhooks/mlflow", content=body, headers=headers)
    assert (answer.status_code, hinted) == (202, [None, M])


# --- what it is about -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        ("registered_model", [M]),
        ("model_version", [M]),
        ("model_version_tag", [M]),
        ("model_version_alias", [M]),
        ("prompt", []),
        ("prompt_alias", []),
        ("budget_policy", []),
    ],
)
async def test_events_about_models_hint_and_others_do_not(
    entity: str, expected: list[str | None]
) -> None:
    body = event(entity=entity)
    answer, hinted = await post("mlflow", body, signed(body))
    assert (answer.status_code, hinted) == (202, expected)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", event(data=[]), event(data={}), event(data={"name": 3}), b"[" * 9999],
)
async def test_what_is_signed_and_no_event_is_said_to_be_none(body: bytes) -> None:
    answer, hinted = await post("mlflow", body, signed(body))
    assert (answer.status_code, answer.json()["code"], hinted) == (400, "unreadable_body", [])


async def test_a_name_that_no_model_has_here_hints_at_nothing() -> None:
    hinted = Hinted()
    async with posting(hinted) as client:
        for name in ("a/b", "", "x" * 600, "\ud800"):
            body = event(data={"name": name})
            answer = await client.post("/webhooks/mlflow", content=body, headers=signed(body))
            assert answer.status_code == 202
    assert hinted == []


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b'{"model": "churn"}', 202, ["churn"]),
        (b"{}", 202, [None]),
        (b"", 202, [None]),
        (b'{"modle": "churn"}', 400, []),
        (b'{"model": null}', 400, []),
        (b"churn", 400, []),
    ],
)
async def test_ci_asks_for_one_model_or_for_all(
    body: bytes, status: int, expected: list[str | None]
) -> None:
    hinted = Hinted()
    async with posting(hinted) as client:
        headers = signed(body, secret=SECRETS.reload, names=RELOAD_HEADERS)
        answer = await client.post("/webhooks/reload", content=body, headers=headers)
        again = await client.post("/webhooks/reload", content=body, headers=headers)
        other = signed(body, names=RELOAD_HEADERS)  # MLflow's secret opens no other door
        refused = await client.post("/webhooks/reload", content=body, headers=other)
    assert (answer.status_code, again.status_code, refused.status_code) == (status, status, 401)
    assert hinted == expected


def records(*places: tuple[str, str]) -> bytes:
    made = [
        {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": b}, "object": {"key": k}}}
        for b, k in places
    ]
    return json.dumps({"Records": made}).encode()


@pytest.mark.parametrize(
    ("uri", "body", "expected"),
    [
        ("s3://models/prod/", records(("models", "prod/churn/3/MLmodel")), ["churn"]),
        ("s3://models/prod", records(("models", "prod/churn/aliases.json")), ["churn"]),
        ("s3://models", records(("models", "churn/3/MLmodel")), ["churn"]),
        ("s3://models", records(("models", "caf%C3%A9+au+lait/3/MLmodel")), ["café au lait"]),
        (
            "s3://models/prod",
            records(*[("models", f"prod/{name}/1/x") for name in ("b", "a", "b")]),
            ["a", "b"],
        ),
        ("s3://models/prod", records(("models", "production/churn/3/MLmodel")), []),
        ("s3://models/prod", records(("others", "prod/churn/3/MLmodel")), []),
        ("s3://models/prod", records(("models", "prod/README")), []),
        ("s3://models", records(*[("models", f"m{n}/1/x") for n in range(101)]), [None]),
        ("s3://models", b'{"Service": "Amazon S3", "Event": "s3:TestEvent"}', []),
        # What lies in MLflow's store does not tell which model it belongs to.
        ("http://mlflow", records(("mlflow", "1/models/m-0/artifacts/MLmodel")), [None]),
        ("http://mlflow", b'{"Records": []}', []),
    ],
)
async def test_an_object_in_s3_tells_its_model(
    uri: str, body: bytes, expected: list[str | None]
) -> None:
    shown = {"authorization": f"Bearer {SECRETS.s3}"}
    answer, hinted = await post("s3", body, shown, tracking_uri=uri)
    assert (answer.status_code, hinted) == (202, expected)


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        *((one, records(("m", "churn/3/x")), 401) for one in (None, "Bearer a guess", "Bearer ")),
        (SECRETS.s3, records(("m", "churn/3/x")), 401),
        *(
            (f"Bearer {SECRETS.s3}", one, 400)
            for one in (b"<xml/>", b'{"Records": {}}', b'{"Records": [{}]}', b"[]")
        ),
    ],
)
async def test_a_delivery_without_the_token_or_of_another_form_hints_at_nothing(
    token: str | None, body: bytes, status: int
) -> None:
    headers = {"authorization": token} if token else {}
    answer, hinted = await post("s3", body, headers, tracking_uri="s3://m")
    assert (answer.status_code, hinted) == (status, [])


# --- operators over TCP ---------------------------------------------------------------------------

OPERATORS_ROUTES = [
    ("GET", "/state"),
    ("GET", "/history"),
    ("POST", "/sync"),
    ("POST", "/rollback"),
]
SHUT = [*OPERATORS_ROUTES, ("GET", "/openapi.json"), ("GET", "/"), ("GET", "/webhooks/../state")]


@contextlib.asynccontextmanager
async def operating(
    tmp_path: Path, *, token: str, shown: str | None
) -> AsyncIterator[tuple[httpx.AsyncClient, Reconciler]]:
    node = NodeInMemory(tmp_path)
    async with node.control_plane() as spine:
        operators = create_app(Operations(node.view, node.operators, "node", "http://registry"))
        async with posting(Hinted(), operators=operators, token=token) as client:
            if shown is not None:
                client.headers["authorization"] = shown
            yield client, spine


@pytest.mark.parametrize(
    ("token", "shown", "status", "says"),
    [
        ("", None, 403, "set REGISTRY_SYNC_OPERATIONS_TOKEN"),
        ("", "Bearer ", 403, "set REGISTRY_SYNC_OPERATIONS_TOKEN"),
        ("right", None, 401, "Authorization: Bearer"),
        ("right", "Bearer wrong", 401, "Authorization: Bearer"),
        ("right", "right", 401, "Authorization: Bearer"),
        ("right", "Bearer right", 200, ""),
    ],
)
async def test_operators_show_their_token_over_tcp(
    tmp_path: Path, token: str, shown: str | None, status: int, says: str
) -> None:
    async with operating(tmp_path, token=token, shown=shown) as (client, _):
        answer = await client.get("/state")
    assert answer.status_code == status
    assert says in answer.text


@pytest.mark.parametrize("token", ["", "right"])
async def test_whatever_is_no_webhook_is_shut_without_the_token(tmp_path: Path, token: str) -> None:
    async with operating(tmp_path, token=token, shown=None) as (client, spine):
        listed = spine.listings.count
        statuses = {
            (method, path): (await client.request(method, path)).status_code
            for method, path in SHUT
        }
        assert spine.listings.count == listed
    assert set(statuses.values()) == {401 if token else 403}


@contextlib.asynccontextmanager
async def listening(limits: ConnectionLimits) -> AsyncIterator[tuple[str, int]]:
    """Serve webhooks on a port."""
    webhooks = build_webhooks(
        SECRETS, hint=Hinted(), tracking_uri="http://registry", clock=lambda: NOW
    )
    operators: Any = None
    server = tcp_server(webhooks=webhooks, operators=operators, token="", limits=limits)
    with tcp_socket("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()
        finally:
            server.stop(at_once=True)
            await serving


async def received(host: str, port: int, sent: bytes) -> bytes:
    """What the listener says until it closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def delivery(body: bytes) -> bytes:
    """A delivery as it is sent."""
    head = "\r\n".join(f"{name}: {value}" for name, value in signed(body).items())
    asked = f"POST /webhooks/mlflow HTTP/1.1\r\nhost: x\r\n{head}\r\n"
    return asked.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def test_a_connection_that_asks_nothing_is_closed() -> None:
    async with listening(replace(TCP_LIMITS, idle_s=0.3, head_s=0.3)) as (host, port):
        whole = delivery(event())
        assert await received(host, port, b"") == b""
        assert (await received(host, port, whole[:30])).startswith(b"HTTP/1.1 408")
        said = await received(host, port, whole + whole[:30])
        assert said.startswith(b"HTTP/1.1 202")
        assert b"HTTP/1.1 408" in said


def test_an_address_that_is_taken_is_said() -> None:
    with (
        tcp_socket("127.0.0.1", 0) as listener,
        pytest.raises(StartError, match="REGISTRY_SYNC_OPERATIONS_PORT"),
        tcp_socket("127.0.0.1", listener.getsockname()[1]),
    ):
        pass
