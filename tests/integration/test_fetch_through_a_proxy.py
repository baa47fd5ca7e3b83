"""Fetching through a real MLflow server's proxy, over a wire that drips."""

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from registry_sync.errors import FetchTimeoutError
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from tests.integration.faulty_wire import FaultyWire
from tests.servers import MlflowServer

pytestmark = pytest.mark.integration

MLMODEL = b"flavors: {python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}}\n"
LIMIT_S = 3.0


def test_a_drip_ends_at_the_time_limit(
    mlflow: MlflowServer, mlflow_artifacts: Path, tmp_path: Path
) -> None:
    folder = mlflow_artifacts / "dripping"
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_bytes(MLMODEL)
    (folder / "model.pkl").write_bytes(os.urandom(2**20))
    limits = FetchLimits(timeout_s=LIMIT_S, disk_floor_bytes=0, settle_s=0)
    uri = "mlflow-artifacts:/dripping"
    whole = Fetcher(tracking_uri=mlflow.url, limits=limits, environ=os.environ)
    assert whole.fetch(uri, tmp_path / "whole").size_bytes == 2**20 + len(MLMODEL)
    with closing(FaultyWire.to(mlflow.url)) as wire:  # new connections: the listing comes at once
        assert isinstance(wire, FaultyWire)
        wire.drips_after = 2**19
        fetcher = Fetcher(tracking_uri=wire.url, limits=limits, environ=os.environ)
        began = time.monotonic()
        with pytest.raises(FetchTimeoutError):
            fetcher.fetch(uri, tmp_path / "into")
        assert time.monotonic() - began < LIMIT_S + 2
