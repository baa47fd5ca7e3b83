"""What all tests share: markers by folder, one server of each kind, and nothing left behind."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers import MlflowServer, Postgres, mlflow_server, postgresql, sends_webhooks

MARKED_FOLDERS = ("integration", "acceptance")
ENDING_PATIENCE_S = 20.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a costly folder with the folder's name."""
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


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
