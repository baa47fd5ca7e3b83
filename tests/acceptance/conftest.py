"""A real MLflow server for the session; nodes of real processes for the tests."""

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.scale import WITH_TORCH
from tests.servers import MlflowServer, Seaweed, seaweedfs


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path, for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def registry(mlflow_registry: MlflowServer) -> Iterator[Registry]:
    """This test's corner of the registry."""
    corner = Registry(mlflow_registry.url)
    yield corner
    corner.forget()


@pytest.fixture(scope="session")
def mlflow_root(mlflow_registry: MlflowServer) -> Path:
    """The folder in which the MLflow server keeps what it has."""
    return mlflow_registry.group.folder


NodeMaker = Callable[..., Node]
_open_nodes: list[Node] = []
_shared_nodes: list[Node] = []


@pytest.fixture
def make_node(short_folder: Path, mlflow_registry: MlflowServer) -> Iterator[NodeMaker]:
    """Make nodes, not started yet, that end with the test."""
    with _maker(short_folder, mlflow_registry) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_node(short_folder: Path, mlflow_registry: MlflowServer) -> Iterator[NodeMaker]:
    """Make nodes, not started yet, that end with the module."""
    with _maker(short_folder, mlflow_registry) as make:
        yield make


@contextmanager
def _maker(short_folder: Path, mlflow_registry: MlflowServer) -> Iterator[NodeMaker]:
    _pause_the_shared_node()
    with ExitStack() as stack:

        def make(*, registry_url: str | None = None, **settings: dict[str, str]) -> Node:
            url = registry_url or mlflow_registry.url
            return stack.enter_context(_node(short_folder, url, **settings))

        yield make


@pytest.fixture(scope="module")
def module_node(
    short_folder: Path, mlflow_registry: MlflowServer, request: pytest.FixtureRequest
) -> Iterator[Node]:
    """One node, not started yet, for the tests of one module.

    With the module's settings: ``GATEWAY`` of the one plane, ``CONTROL`` of the other.
    """
    _pause_the_shared_node()
    gateway: dict[str, str] = getattr(request.module, "GATEWAY", {})
    control: dict[str, str] = getattr(request.module, "CONTROL", {})
    with _node(short_folder, mlflow_registry.url, gateway=gateway, control=control) as node:
        yield node


@pytest.fixture(scope="session")
def shared_node(short_folder: Path, mlflow_registry: MlflowServer) -> Iterator[Node]:
    """One running node for all tests that do it no harm."""
    with _node(short_folder, mlflow_registry.url, gateway=WITH_TORCH) as node:
        _shared_nodes.append(node)
        yield node.start()
        _shared_nodes.remove(node)


@pytest.fixture
def running_node(shared_node: Node) -> Node:
    """The shared node, both planes of it running whatever an earlier test left."""
    return shared_node.start()


def _pause_the_shared_node() -> None:
    """Let a node have the registry for itself: what others load would be counted as its doing."""
    for node in _shared_nodes:
        if node.control is not None:
            node.control.pause()


@contextmanager
def _node(
    parent: Path,
    registry_url: str,
    *,
    gateway: Mapping[str, str] | None = None,
    control: Mapping[str, str] | None = None,
) -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(dir=parent))
    node = Node(folder, registry_url, gateway=gateway, control=control)
    _open_nodes.append(node)
    try:
        yield node
    finally:
        try:
            node.close()
        finally:
            _open_nodes.remove(node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the nodes' logs with a failure."""
    report = yield
    if report.failed:
        report.sections += [(f"node {node.mark}", node.logs()) for node in _open_nodes]
    return report
