"""What all tests share: markers, one server of each kind, and nothing left behind."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]  # it has no types
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # as above

from tests.servers import MlflowServer, Postgres, mlflow_server, postgresql, sends_webhooks

MARKED_FOLDERS = ("integration", "acceptance")
ENDING_PATIENCE_S = 20.0
SOAK = os.environ.get("REGISTRY_GATEWAY_SOAK", "") not in {"", "0"}
ROOT = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test of a costly folder with its name, and leave out what is of the long run."""
    for item in items:
        folder = item.path.relative_to(ROOT).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
    left_out = [item for item in items if not SOAK and _is_of_the_long_run(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


class OneSharedNode(LoadFileScheduling):  # type: ignore[misc]  # as above
    """Runs each file on one worker, and all files whose tests share the node on the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "shared node" if _shares_the_node(file) else file


@cache
def _shares_the_node(file: str) -> bool:
    text = (ROOT.parent / file).read_text()
    return "running_node" in text or "shared_node" in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneSharedNode:
    """Return who gives the tests to the workers: the groups of xdist 3.8 need an older pytest."""
    return OneSharedNode(config, log)


def _is_of_the_long_run(item: pytest.Item) -> bool:
    """Whether a test is marked ``soak``: the tests that it names show the same in the short run."""
    marks = list(item.iter_markers("soak"))
    for path in (path for mark in marks for path in mark.args):
        assert (ROOT / path).is_file(), f"{item.nodeid} names {path}, which is not there"
    return bool(marks)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """After the last test no process that the tests started is running."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    started = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    own = [child for child in started if not _is_resource_tracker(child)]
    _, left = psutil.wait_procs(own, timeout=ENDING_PATIENCE_S)
    assert not left, f"these processes outlive the tests: {left}"


def _is_resource_tracker(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's tracker of this very process, which ends with it."""
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="session")
def mlflow_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One real MLflow server for the session: it starts slowly. Its data is in ``<root>``."""
    root = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(root, environ=sends_webhooks()) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Postgres]:
    """One real PostgreSQL server for the session."""
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Postgres = request.getfixturevalue("postgresql_server")
    return server.empty_database()
