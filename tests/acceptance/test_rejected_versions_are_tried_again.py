"""A version that was rejected for want of a library: by command, and beside other libraries."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import HOOKS, REPOSITORY, Node
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import ScriptedModel

pytestmark = pytest.mark.soak(
    "unit/registry_sync/operations/decisions/test_retry.py",
)
LATEST = "latest"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where the gateway's workers find libraries, besides those that are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def put(site: Path, name: str) -> None:
    """Put a module there by hand."""
    (site / f"{name}.py").write_text("ANSWER = 42\n")


def install(site: Path, name: str) -> None:
    """Install a library as pip does."""
    put(site, name)
    (site / f"{name}-1.0.dist-info").mkdir()


async def is_rejected(http: httpx.AsyncClient, node: Node, model: str, version: int) -> str:
    """Wait until ``latest`` is kept from a version; what the catalogue says why."""

    async def look() -> str | None:
        shown = (await node.model(http, model) or {}).get("aliases", {}).get(LATEST, {})
        why = str(shown.get("why"))
        return why if shown.get("aspired") == version and "retry" in why else None

    return await eventually(look, f"version {version} is rejected")


async def retries(node: Node, model: str) -> list[tuple[int, str]]:
    entries = (await node.operations("GET", "/history", model=model))["entries"]
    return [(one["version"], one["asked_by"]) for one in entries if one["what"] == "retry"]


async def answers(http: httpx.AsyncClient, node: Node, model: str) -> Any:
    answer = await ask(http, node.url, Call(model, 0, f"@{LATEST}"), x_body(2.0))
    assert answer.ok, answer
    return answer.version, answer.predictions


async def test_latest_comes_once_its_library_is_there(
    make_node: NodeMaker, registry: Registry, site: Path
) -> None:
    model = registry.name("lacks")
    registry.publish(model, ScriptedModel(scale=1.0))
    path = os.pathsep.join([str(HOOKS), str(REPOSITORY), str(site)])
    node = make_node(gateway={"PYTHONPATH": path}).start()
    async with client(2) as http:
        await node.active(http, model, LATEST, 1)
        registry.publish(model, ScriptedModel(scale=2.0, needs_module="needed_first"))
        why = await is_rejected(http, node, model, 2)
        assert "needed_first" in why
        assert f"registry-gateway retry {model}/2" in why
        failed = node.command("retry", f"{model}/2")
        assert failed.returncode == 1, failed.stdout
        assert "needed_first" in failed.stderr
        assert await answers(http, node, model) == (1, [2.0])

        put(site, "needed_first")
        done = node.command("retry", f"{model}/2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{model}/2 is no longer rejected: @{LATEST} means it now."
        assert await answers(http, node, model) == (2, [4.0])
        assert await retries(node, model) == [(2, "operator")] * 2

        registry.publish(model, ScriptedModel(scale=3.0, needs_module="needed_second"))
        await is_rejected(http, node, model, 3)
        await restart_gateway(http, node)
        await is_rejected(http, node, model, 3)  # nothing is installed that it could need
        assert len(await retries(node, model)) == 2

        install(site, "needed_second")
        await restart_gateway(http, node)
        await node.active(http, model, LATEST, 3)
        assert await answers(http, node, model) == (3, [6.0])
        assert (await retries(node, model))[0] == (3, "restart")


async def restart_gateway(http: httpx.AsyncClient, node: Node) -> None:
    """Start the gateway anew, and let the control plane look at it for a while."""
    assert node.gateway is not None
    assert node.gateway.stop() == 0
    node.start_gateway()
    await node.passes(http, 4)
