"""What operators see and do, over the listener's own application and the command."""

import asyncio
import contextlib
import itertools
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import Result

from gateway.contract import AliasRef
from registry_sync import bootstrap
from registry_sync.domain import Activation
from registry_sync.operations.app import create_app
from registry_sync.operations.decisions.rollback import before
from registry_sync.operations.listeners import TCP_LIMITS, tcp_server, tcp_socket
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.system import metrics
from tests.fakes.nodes import A, M, NodeInMemory, idle, promoted
from tests.fakes.operating import asking, decide, listening, operations, refused, run, serving
from tests.fakes.registry import FakeRegistry
from tests.fakes.waiting import becomes

Command = Callable[..., Result]
AsyncCommand = Callable[..., Awaitable[Result]]


# --- the listener ---------------------------------------------------------------------------------


async def test_the_state_says_where_aliases_are_and_why_not_where_they_should_be(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.registry.tamper(M, 2)
        node.registry.stamp(M, 2, "sha256:" + "0" * 64)
        await node.promotes(2)
        await becomes(lambda: spine.journal.view.quarantines, "it is quarantined")
        await idle(spine)
        state = (await client.get("/state")).json()
    assert state["tracking_uri"] == "http://registry"
    (model,) = state["models"]
    (alias,) = model["aliases"]
    assert (alias["active"], alias["aspired"]) == (1, 2)
    assert "stamped" in alias["reason"]
    assert [version["state"] for version in model["versions"]] == ["available", "quarantined"]
    assert (state["gateway_error"], state["source_error"], state["ledger_error"]) == (
        None,
        None,
        None,
    )


async def test_the_registrys_calls_are_counted_for_prometheus(node: NodeInMemory) -> None:
    metrics.registry_calls.labels("search_registered_models").inc()
    async with node.control_plane() as spine, asking(node, spine) as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'registry_sync_registry_calls_total{call="search_registered_models"}' in answer.text


async def test_history_tells_who_changed_what(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        entries = (await client.get("/history", params={"model": M})).json()["entries"]
        everything = (await client.get("/history", params={"limit": 2})).json()["entries"]
        nothing = (await client.get("/history", params={"model": "other"})).json()["entries"]
    moves = [e for e in entries if e["what"] == "activate"]
    assert [(e["version"], e["previous"], e["asked_by"]) for e in moves] == [
        (2, 1, "poll"),
        (1, None, "poll"),
    ]
    assert {e["what"] for e in entries} == {"fetch", "stage", "activate"}
    assert (len(everything), nothing) == (2, [])


async def test_a_rollback_holds_until_the_registry_moves_on(node: NodeInMemory) -> None:
    node.registry.publish(M, 3, latest=False)
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        node.registry.down = True
        answer = await client.post("/rollback", json={"model": M, "alias": A})
        assert answer.status_code == 202
        answered = answer.json()
        (explained,) = answered.pop("explained")
        assert answered == {
            "outcome": "pending",
            "model": M,
            "alias": A,
            "from_version": 2,
            "to_version": 1,
            "was_pinned": False,
            "reason": None,
            "not_recorded": None,
        }
        assert (explained["why"], explained["hold"]["while_aspired"]) == ("under_way", 2)
        assert "held at version 1 by operator" in explained["reason"]
        await node.serves(1)
        assert node.gateway.points(M, A) == 1
        node.registry.down = False
        await spine.poll()
        await node.stays_at(1)
        await idle(spine)
        assert spine.ledger.activations_of(M, A)[0].asked_by == "operator"
        await promoted(node, 3)
        assert spine.journal.view.holds == {}


async def test_a_version_rolled_back_from_is_not_gone_back_to_once_the_registry_agrees(
    node: NodeInMemory,
) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        await decide(client, "/rollback", model=M, alias=A)
        await promoted(node, 1)
        assert spine.journal.view.holds == {}
        said = await refused(client, "/rollback", model=M, alias=A)
        assert "has no previous version" in said


async def test_a_rollback_to_a_version_that_cannot_serve_says_so_and_stays(
    node: NodeInMemory,
) -> None:
    reason = (
        "a library is missing; it is tried again when the registry moves an alias to it anew, "
        "or by `registry-gateway retry churn/1`"
    )
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        node.gateway.fails[M, 1] = ("load_failed", "a library is missing")
        answer = await decide(client, "/rollback", model=M, alias=A)
        assert answer["outcome"] == "refused"
        assert answer["reason"].endswith(reason)
        await node.stays_at(2)
        assert spine.journal.view.holds[AliasRef(M, A)].target_version == 1
        assert await refused(client, "/rollback", model=M, alias=A, version=1) == reason
        await decide(client, "/unpin", model=M, alias=A)
        assert spine.journal.view.holds == {}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": M, "alias": A}, "has no previous version"),
        ({"model": M, "alias": "other"}, "points at nothing on this node"),
        ({"model": M, "alias": A, "version": 7}, "has never been on this node"),
        ({"model": M, "alias": A, "version": 1}, "points at version 1 already"),
    ],
)
async def test_what_cannot_be_rolled_back_is_said(
    node: NodeInMemory, body: dict[str, object], says: str
) -> None:
    async with node.at_rest(1) as spine, asking(node, spine) as client:
        answer = await client.post("/rollback", json=body)
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def moves(*versions: tuple[int, str]) -> list[Activation]:
    """Activations, the oldest first as arguments, newest first as the ledger gives them.

    ``pin`` is an operator's, too.
    """
    lefts = [None, *(version for version, _ in versions)]
    made = [
        Activation(
            M,
            A,
            version,
            f"sha256:{version:064x}",
            left,
            None,
            "operator" if asked_by == "pin" else asked_by,
            0.0,
            1,
            pinned=asked_by == "pin",
        )
        for (version, asked_by), left in zip(versions, lefts, strict=False)
    ]
    return made[::-1]


@pytest.mark.parametrize(
    ("history", "active", "expected"),
    [
        (moves((1, "poll"), (2, "poll")), 2, 1),
        (moves((1, "poll"), (2, "poll"), (1, "operator")), 1, None),
        (moves((1, "poll"), (2, "poll"), (3, "poll"), (2, "operator")), 2, 1),
        # Started anew in between: the same version twice is one.
        (moves((1, "poll"), (2, "poll"), (2, "recovery")), 2, 1),
        # The fix of what was rolled back from is worse: back to what served before both.
        (moves((1, "poll"), (2, "poll"), (3, "poll"), (2, "operator"), (4, "poll")), 4, 2),
        # Farther back at once, then farther still: what was passed over is not gone to.
        (moves((1, "poll"), (2, "poll"), (3, "poll"), (4, "poll"), (2, "operator")), 2, 1),
        # What was rolled back from, and promoted again on purpose, counts again.
        (
            moves((1, "poll"), (2, "poll"), (1, "operator"), (2, "poll"), (3, "poll")),
            3,
            2,
        ),
        (moves((1, "poll"), (2, "poll"), (1, "poll"), (2, "operator")), 2, None),
        # A version that no alias had, chosen by an operator.
        (moves((1, "poll"), (2, "poll"), (5, "operator")), 5, 1),
        # What is pinned is gone to, not gone back to: it can be gone back from.
        (moves((1, "poll"), (2, "pin")), 2, 1),
        (moves((1, "poll"), (2, "poll"), (1, "pin")), 1, 2),
        (moves((1, "poll"), (2, "pin"), (1, "operator")), 1, None),
        (moves((1, "poll")), 1, None),
        (moves(), 1, None),
    ],
)
def test_what_was_active_before(
    history: list[Activation], active: int, expected: int | None
) -> None:
    found = before(history, active)
    assert (found.version if found else None) == expected


# --- the command ----------------------------------------------------------------------------------


async def test_the_command_shows_state_and_history_and_rolls_back(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, listening(node, spine) as command:
        done = await command("rollback", f"{M}@{A}")
        assert done.exit_code == 0, done.stderr
        assert f"{M}@{A} is back at version 1 (was 2)." in done.stdout
        assert "while the registry's alias points at version 2" in done.stdout
        await idle(spine)
        shown = await command("status")
        assert shown.exit_code == 0, shown.stderr
        assert re.search(rf"{M}@{A} +1 → 2 \(held\)", shown.stdout)
        told = await command("history", M)
        assert re.search(r"churn@champion +activate +2 → 1 +complete +operator", told.stdout)
        as_json = await command("history", M, "--json", "--limit", "1")
        (entry,) = json.loads(as_json.stdout)["entries"]
        assert (entry["version"], entry["previous"]) == (1, 2)
        again = await command("rollback", f"{M}@{A}", "--json")
        assert (again.exit_code, again.stdout) == (1, "")
        assert "has no previous version" in again.stderr


BEYOND = [
    "1e400",
    "-1e400",
    "NaN",
    str(10**26),
    str(2**53 + 1),
    "0",
    "-1",
    "1.5",
    '"\\ud800"',
    "[1]",
    "null" * 50_000,
    "9" * 5000,
    "{" * 5000,
]


WITH_A_VERSION = ("rollback", "pin", "quarantine/retry", "quarantine/accept", "retry")
WITH_A_MODEL = (*WITH_A_VERSION, "unpin", "sync")
NO_NAMES = ['"\\ud800"', "1e400", f'"{"x" * 513}"', '"\\u0000"']


async def test_what_no_model_or_version_can_be_is_refused_and_nothing_ends(
    node: NodeInMemory,
) -> None:
    bodies = [
        *((path, f'"{M}"', version) for path, version in itertools.product(WITH_A_VERSION, BEYOND)),
        *((path, name, "1") for path, name in itertools.product(WITH_A_MODEL, NO_NAMES)),
    ]
    async with node.following(1) as spine, asking(node, spine) as client:
        for path, name, version in bodies:
            body = f'{{"model": {name}, "alias": "{A}", "version": {version}}}'
            answer = await client.post(f"/{path}", content=body, headers=JSON)
            refused = (path, name[:20], version[:20])
            assert 400 <= answer.status_code < 500, refused
            assert answer.headers["content-type"] == "application/problem+json", refused
            assert answer.json()["status"] == answer.status_code, refused
            if version == "1":
                assert answer.json()["code"] == "invalid_request", refused
        await promoted(node, 2)
        assert (await client.get("/state")).status_code == 200


async def test_a_full_tcp_port_leaves_the_socket_of_operators_alone(node: NodeInMemory) -> None:
    async with (
        node.control_plane() as spine,
        listening_on_tcp(node, spine, token="right") as (url, _),
        listening(node, spine) as command,
        contextlib.AsyncExitStack() as silent,
    ):
        port = httpx.URL(url).port
        for _ in range(3 * TCP_LIMITS.most):
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                silent.callback(writer.close)
        shown = await command("status")
        assert shown.exit_code == 0, shown.stderr


async def test_a_path_with_a_slash_too_many_is_no_redirect(node: NodeInMemory) -> None:
    """It would repeat the Host that the caller sent."""
    async with node.control_plane() as spine, asking(node, spine) as client:
        answer = await client.get("/state/", headers={"host": "elsewhere"})
        assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")


async def test_a_query_beyond_all_is_refused(node: NodeInMemory) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        assert (await client.get("/nowhere")).json()["code"] == "route_not_found"
        assert (await client.get("/pin")).json()["code"] == "method_not_allowed"
        for query in (f"limit={10**26}", "limit=1e400", "model=", f"limit={'9' * 5000}"):
            answer = await client.get(f"/history?{query}")
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), query


JSON = {"content-type": "application/json"}


@contextlib.asynccontextmanager
async def listening_on_tcp(
    node: NodeInMemory, spine: Reconciler, *, token: str
) -> AsyncIterator[tuple[str, AsyncCommand]]:
    """Serve operations on a port; give its URL, and the command of a machine that has no node."""
    operators = create_app(operations(node))
    server = tcp_server(webhooks=(), operators=operators, token=token)
    with (
        tcp_socket("127.0.0.1", 0) as listener,
        tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder,
    ):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with serving(server, listener):
            yield url, partial(asyncio.to_thread, run, folder)


async def test_the_command_asks_another_machine_with_the_token(node: NodeInMemory) -> None:
    async with (
        node.control_plane() as spine,
        listening_on_tcp(node, spine, token="right") as (url, command),
    ):
        await node.serves(1)
        await promoted(node, 2)
        remote = {
            "REGISTRY_GATEWAY_OPERATIONS_URL": url,
            "REGISTRY_GATEWAY_OPERATIONS_TOKEN": "right",
        }
        shown = await command("status", **remote)
        assert shown.exit_code == 0, shown.stderr
        assert re.search(rf"{M}@{A} +2 ", shown.stdout)
        done = await command("--url", f"{url}/", "--token", "right", "rollback", f"{M}@{A}")
        assert (done.exit_code, node.gateway.points(M, A)) == (0, 1), done.stderr
        refused = await command("--url", url, "history")
        assert refused.exit_code == 1
        assert "token is missing" in refused.stderr
        here = await command("status")
        assert here.exit_code == 3
        nowhere = await command("status", REGISTRY_GATEWAY_OPERATIONS_URL="node:8081")
        assert nowhere.exit_code == 2
        assert "must be an http:// or https:// URL" in nowhere.stderr
        silent = await command("status", REGISTRY_GATEWAY_OPERATIONS_URL="http://127.0.0.1:1")
        assert silent.exit_code == 3
        assert "REGISTRY_SYNC_OPERATIONS_PORT" in silent.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("rollback", "churn"), 2, "not MODEL@ALIAS"),
        (("rollback", "churn@3"), 2, "digits always mean a version"),
        (("pin", "churn", "1"), 2, "not MODEL@ALIAS"),
        (("pin", "churn@champion", "0"), 2, "Invalid value"),
        (("unpin", "churn@3"), 2, "digits always mean a version"),
        (("explain", "a/b"), 2, "must not contain"),
        (("explain", "churn", "a b"), 2, "an alias must have"),
        (("sync", "a:b"), 2, "must not contain"),
        (("quarantine", "retry", "churn"), 2, "not MODEL/VERSION"),
        (("quarantine", "retry", "churn/champion"), 2, "whole number"),
        (("stamp", "churn/3"), 2, "not models:/NAME/VERSION"),
        (("stamp", "models:/churn/champion"), 2, "a version must be a whole number"),
        (("status",), 3, "python -m registry_sync"),
        (("history",), 3, "REGISTRY_SYNC_NODE_DIR"),
        (("explain", "churn"), 3, "python -m registry_sync"),
        (("freeze",), 3, "python -m registry_sync"),
        (("quarantine", "list"), 3, "python -m registry_sync"),
    ],
)
def test_wrong_usage_and_an_absent_control_plane_say_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run(tmp_path, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr.replace("\n", " ")


def test_a_setting_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    environment = {"REGISTRY_SYNC_POLL_INTERVAL_S": "often", "REGISTRY_SYNC_TRACKING_URI": ""}
    done = run(tmp_path, "status", **environment)
    assert done.exit_code == 2
    assert "REGISTRY_SYNC_POLL_INTERVAL_S: " in done.stderr
    assert "REGISTRY_SYNC_TRACKING_URI: " in done.stderr


# --- stamp ----------------------------------------------------------------------------------------


@pytest.fixture
def stamping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[FakeRegistry, Command]:
    registry = FakeRegistry()
    registry.publish(M, 1)
    monkeypatch.setattr(bootstrap, "build_registry", lambda _settings: registry)
    monkeypatch.setattr(bootstrap, "build_fetcher", lambda _settings: registry)
    return registry, partial(run, tmp_path, "stamp")


def test_a_stamp_is_the_digest_of_the_bytes(stamping: tuple[FakeRegistry, Command]) -> None:
    registry, stamp = stamping
    digest = registry.digest(M, 1)
    done = stamp(f"models:/{M}/1", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {
        "model": M,
        "version": 1,
        "digest": digest,
        "replaced": None,
    }
    assert registry.version(M, 1).expected_digest == digest
    assert digest in stamp(f"models:/{M}/1").stdout


def test_another_stamp_is_replaced_only_on_purpose(
    stamping: tuple[FakeRegistry, Command],
) -> None:
    registry, stamp = stamping
    stamp(f"models:/{M}/1")
    before_it = registry.digest(M, 1)
    registry.tamper(M, 1)
    refused = stamp(f"models:/{M}/1")
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert registry.version(M, 1).expected_digest == before_it
    assert stamp(f"models:/{M}/1", "--force").exit_code == 0
    assert registry.version(M, 1).expected_digest == registry.digest(M, 1)


def test_a_version_that_is_not_there_cannot_be_stamped(
    stamping: tuple[FakeRegistry, Command],
) -> None:
    _, stamp = stamping
    done = stamp(f"models:/{M}/9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no version 9" in done.stderr
