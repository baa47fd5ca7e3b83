"""Real neighbours, one of each per session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from registry_sync.sources.mlflow_registry import bound_mlflow
from tests.servers import MlflowServer, Seaweed, mlflow_server, seaweedfs


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the event loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def _bounded_mlflow() -> None:
    """Let MLflow's client in this process fail soon, as the product does."""
    bound_mlflow(os.environ)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server."""
    with seaweedfs(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server that proxies artifacts to a folder: ``<its root>/artifacts``."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / "server") as server:
        yield server


@pytest.fixture
def mlflow_artifacts(mlflow: MlflowServer) -> Path:
    """The folder in which the MLflow server keeps what it proxies."""
    return mlflow.group.folder / "artifacts"
