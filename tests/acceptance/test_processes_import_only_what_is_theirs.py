"""What gateway, forkserver and workers have imported and started: told by the living processes."""

import asyncio

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.processes import other_threads
from tests.acceptance.registry import Registry
from tests.acceptance.traffic import Call, ask, client
from tests.models.catalogue import BuildableModel, IrisPipeline, ScriptedModel, TorchModel

NOT_IN_A_WORKER = (
    "gateway.http", "gateway.serving.dispatch", "registry_sync", "uvicorn", "sqlalchemy", "boto3",
)  # fmt: skip
NOT_IN_THE_GATEWAY = (
    "mlflow", "pandas", "sklearn", "torch", "boto3", "sqlalchemy", "registry_sync",
)  # fmt: skip
FORKSERVER_THREADS = {"jemalloc_bg_thd"}
"""The threads that a forkserver may have beside its main one, by name. A thread is lost in every
fork, with the locks that it holds: Arrow's allocator gives its own back to both sides."""


def _of(modules: set[str], packages: tuple[str, ...]) -> list[str]:
    """Those of the modules that are, or are in, one of the packages."""
    return sorted(
        name
        for name in modules
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    )


async def _worker_of(
    node: Node, registry: Registry, http: httpx.AsyncClient, word: str, model: BuildableModel
) -> int:
    """Serve a model; the pid of its worker."""
    name = registry.name(word)
    version = await asyncio.to_thread(registry.publish, name, model)
    await node.catalogue_shows(http, name, version)
    answer = await ask(http, node.url, Call(name, 0, selector="1"), model.payload())
    assert answer.ok, answer
    document = (await http.get(f"{node.url}/models/{name}/versions/1")).json()
    pid = document["replicas"][0]["pid"]
    assert pid in node.workers()
    return int(pid)


@pytest.mark.parametrize(
    ("word", "model"),
    [("pipeline", IrisPipeline()), ("module", TorchModel()), ("code", ScriptedModel())],
    ids=["sklearn", "torch", "PythonModel"],
)
async def test_a_live_worker_has_imported_nothing_of_the_servers(
    running_node: Node, registry: Registry, word: str, model: BuildableModel
) -> None:
    async with client() as http:
        pid = await _worker_of(running_node, registry, http, word, model)
    modules = await asyncio.to_thread(running_node.modules_of, pid)
    assert "gateway.worker.entry" in modules, "not the modules of a worker"
    assert _of(modules, NOT_IN_A_WORKER) == []
    if _of(modules, ("fastapi",)):
        assert "mlflow.pyfunc" in modules, "FastAPI came from elsewhere than mlflow.pyfunc"


async def test_the_gateway_has_imported_no_model_library_and_nothing_of_the_control_plane(
    running_node: Node, registry: Registry
) -> None:
    async with client() as http:  # it has served, so whatever it imports late is there
        await _worker_of(running_node, registry, http, "served", IrisPipeline())
        for path in ("/models", "/metrics", "/health/ready", "/openapi.json", "/docs"):
            assert (await http.get(f"{running_node.url}{path}")).status_code == 200
    assert running_node.gateway is not None
    modules = await asyncio.to_thread(running_node.modules_of, running_node.gateway.pid)
    assert "gateway.http.app" in modules, "not the modules of the gateway"
    assert _of(modules, NOT_IN_THE_GATEWAY) == []


async def test_the_forkserver_has_no_thread_that_a_fork_would_break(
    running_node: Node, registry: Registry
) -> None:
    async with client() as http:
        await _worker_of(running_node, registry, http, "forked", ScriptedModel())
    forkserver = running_node.forkserver().pid
    assert set(other_threads(forkserver)) <= FORKSERVER_THREADS
    modules = await asyncio.to_thread(running_node.modules_of, forkserver)
    assert "sklearn" in modules, "not the modules of a forkserver"
    assert _of(modules, NOT_IN_A_WORKER) == []
