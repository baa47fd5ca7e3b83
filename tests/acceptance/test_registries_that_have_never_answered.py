"""A registry that refuses or hangs from the first moment on: everybody is told, nothing is lost."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.lying_registry import LyingRegistry, Mode
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel
from tests.servers import MlflowServer, free_ports

ALIAS = "champion"


SILENT = "has not answered: it was asked|[Tt]imed out"
"""A registry that says nothing: until the client gives up, and after that."""


@pytest.fixture(scope="module")
def port() -> int:
    """Where the registry is said to be."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def node(make_module_node: NodeMaker, port: int) -> Node:
    """A node, not started yet, whose registry is the one of `lying`."""
    return make_module_node(registry_url=f"http://127.0.0.1:{port}")


@pytest.fixture
def lying(mlflow_registry: MlflowServer, port: int) -> Iterator[LyingRegistry]:
    """The registry at the port, which answers nothing but errors until the test sets its mode."""
    registry = LyingRegistry(mlflow_registry.url, port, "error")
    yield registry
    registry.close()


async def shown(http: httpx.AsyncClient, node: Node, path: str) -> dict[str, Any]:
    """Return a page's view of the registry; a node is not ready before the registry answers."""
    answer = await http.get(node.url + path)
    body = answer.json()
    is_starting = body.get("status") == "starting" and body["registry"]["listed_at"] is None
    assert answer.status_code == (503 if is_starting else 200), answer.text
    registry: dict[str, Any] = answer.json()["registry"]
    return registry


async def is_told_everywhere(
    http: httpx.AsyncClient, node: Node, model: str, registry_url: str, says: str
) -> None:
    """Callers, the catalogue, readiness and operators are told what the registry says.

    Only operators are told where it is.
    """

    async def look() -> Answer | None:
        answer = await ask(http, node.url, Call(model, 0), row_body(0))
        assert (answer.status, answer.code) == (503, "registry_unavailable"), answer
        return answer if re.search(says, answer.body["detail"]) else None

    answer = await eventually(look, f"callers are told {says!r}")
    assert registry_url not in answer.body["detail"]
    for selector in ("1", f"@{ALIAS}"):
        answer = await ask(http, node.url, Call(model, 0, selector), row_body(0))
        assert (answer.status, answer.code) == (503, "registry_unavailable"), answer
        assert re.search(says, answer.body["detail"]), answer
    for path in ("/models", "/health/ready"):
        registry = await shown(http, node, path)
        assert re.search(says, registry["error"]), (path, registry)
        assert registry_url not in registry["error"]
        assert (registry["listed_at"], registry["control_plane"]) == (None, "up")
    told = node.command("status")
    assert told.returncode == 0, told.stderr
    text = " ".join(told.stdout.split())
    assert re.search(says, text), told.stdout
    assert f"registry at {registry_url}" in text, told.stdout


@pytest.mark.soak("unit/registry_sync/reconcile/reconciler/test_registry_unknown.py")
async def test_a_registry_that_hangs_is_followed_once_it_answers(
    make_node: NodeMaker, registry: Registry, lying: LyingRegistry
) -> None:
    await is_followed_once_it_answers(
        make_node(registry_url=lying.url), registry, lying, "slow", SILENT
    )


async def test_a_registry_that_fails_is_followed_once_it_answers(
    node: Node, registry: Registry, lying: LyingRegistry
) -> None:
    await is_followed_once_it_answers(node, registry, lying, "error", "500 error responses")


async def is_followed_once_it_answers(
    node: Node, registry: Registry, lying: LyingRegistry, mode: Mode, says: str
) -> None:
    """The node is told what the registry says, and then follows the registry, which answers."""
    model = registry.name("first")
    registry.publish(model, LinearModel(2.0))
    registry.point(model, ALIAS, 1)
    lying.mode = mode
    node.start()
    async with client(2) as http:
        await is_told_everywhere(http, node, model, lying.url, says)
        lying.mode = "honest"
        await node.active(http, model, ALIAS, 1)
        answer = await ask(http, node.url, Call(model, 4), row_body(4))
        assert answer.predictions == [row_answers(2.0)[4]]
        assert (await shown(http, node, "/models"))["error"] is None
        unknown = await ask(http, node.url, Call("nobody", 0), row_body(0))
        assert (unknown.status, unknown.code) == (404, "model_not_found"), unknown
