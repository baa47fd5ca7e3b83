"""A real MLflow server for the session; nodes of real processes for the tests."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
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


@pytest.fixture
def make_node(
    request: pytest.FixtureRequest, short_folder: Path, mlflow_registry: MlflowServer
) -> Iterator[NodeMaker]:
    """Make nodes that end with the test; when it failed, the ends of their logs are shown."""
    nodes: list[Node] = []

    def make(*, registry_url: str | None = None, **settings: dict[str, str]) -> Node:
        folder = Path(tempfile.mkdtemp(dir=short_folder))
        nodes.append(Node(folder, registry_url or mlflow_registry.url, **settings))
        return nodes[-1]

    with ExitStack() as stack:
        stack.callback(_show_logs_of_failed, request, nodes)
        yield _closing(make, stack)


@pytest.fixture(scope="module")
def module_node(
    request: pytest.FixtureRequest, short_folder: Path, mlflow_registry: MlflowServer
) -> Iterator[Node]:
    """One node, not started yet, for all tests of a module that do it no harm."""
    node = Node(Path(tempfile.mkdtemp(dir=short_folder)), mlflow_registry.url)
    with ExitStack() as stack:
        stack.callback(_show_logs_of_failed, request, [node])
        stack.callback(node.close)
        yield node


@pytest.fixture(scope="module")
def running_node(module_node: Node) -> Node:
    """The module's node, started."""
    return module_node.start()


def _closing(make: NodeMaker, stack: ExitStack) -> NodeMaker:
    def make_and_close(**settings: object) -> Node:
        node = make(**settings)
        stack.callback(node.close)
        return node

    return make_and_close


def _show_logs_of_failed(request: pytest.FixtureRequest, nodes: list[Node]) -> None:
    """Print the logs; pytest shows what is printed with failures only."""
    for node in nodes:
        print(node.logs())
