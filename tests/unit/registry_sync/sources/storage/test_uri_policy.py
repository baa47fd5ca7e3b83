"""A registry cannot send us, and its credentials, to whatever host somebody registered."""

import pytest

from registry_sync.errors import ForbiddenPlaceError
from registry_sync.sources.storage import location, resolve
from registry_sync.sources.storage.uri_policy import check_place

SERVER = "https://mlflow.example/base"


@pytest.mark.parametrize(
    "uri",
    [
        "/a/folder",
        "file:///a/folder",
        "s3://bucket/prefix",
        "gs://bucket/prefix",
        "abfss://container@account.dfs.core.windows.net/prefix",
        "wasbs://container@account.blob.core.windows.net/prefix",
        "hdfs://namenode:8020/prefix",
        "dbfs:/prefix",
        "runs:/0123/model",
        "mlflow-artifacts:/0/models/m-1/artifacts",
        "mlflow-artifacts:///0/models/m-1/artifacts",
        "mlflow-artifacts://mlflow.example/0",
        "mlflow-artifacts://MLFLOW.example:443/0",
        "https://mlflow.example/api/2.0/mlflow-artifacts/artifacts/0",
    ],
)
def test_the_servers_own_and_the_storages_that_mlflow_knows_are_read(uri):
    check_place(uri, SERVER)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/mlflow-artifacts/artifacts/x",
        "http://mlflow.example/x",
        "https://mlflow.example:8443/x",
        "https://mlflow.example.evil.example/x",
        "https://mlflow.example@evil.example/x",
        "https://evil.example\\@mlflow.example/x",
        "https:///x",
        "https://mlflow.example:99999/x",
        "mlflow-artifacts://evil.example/0",
        "mlflow-artifacts://mlflow.example:80/0",
        "HTTP://evil.example/x",
    ],
)
def test_another_server_is_not_shown_the_registrys_credentials(uri):
    with pytest.raises(ForbiddenPlaceError, match="another HTTP server"):
        check_place(uri, SERVER)


@pytest.mark.parametrize("uri", ["ftp://h/x", "sftp://h/x", "models:/m/1", "gopher://h/x", "x:y"])
def test_other_kinds_of_places_are_not_read(uri):
    with pytest.raises(ForbiddenPlaceError, match="which is not read"):
        check_place(uri, SERVER)


def test_what_is_no_uri_is_not_read():
    with pytest.raises(ForbiddenPlaceError, match="no URI"):
        check_place("http://[x", SERVER)


def test_a_port_of_the_server_itself_counts():
    check_place("mlflow-artifacts://127.0.0.1:5000/0", "http://127.0.0.1:5000")
    with pytest.raises(ForbiddenPlaceError):
        check_place("mlflow-artifacts://127.0.0.1/0", "http://127.0.0.1:5000")


def test_a_run_whose_artifacts_are_elsewhere_sends_us_there_no_more(monkeypatch):
    monkeypatch.setattr(resolve, "_of_run", lambda *_: "http://evil.example/x")
    with pytest.raises(ForbiddenPlaceError):
        resolve.open_location(
            "runs:/0123/model", tracking_uri=SERVER, s3=pytest.fail, scratch=location.Scratch()
        )
