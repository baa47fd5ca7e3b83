"""A registry cannot send us, and its credentials, to whatever host somebody registered."""

import pytest

from registry_sync.errors import ForbiddenUriError
from registry_sync.sources.storage import location, resolve
from registry_sync.sources.storage.uri_policy import check_uri

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
    check_uri(uri, SERVER)


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
def test_uri_of_another_http_server_is_forbidden(uri):
    with pytest.raises(ForbiddenUriError, match="another HTTP server"):
        check_uri(uri, SERVER)


@pytest.mark.parametrize("uri", ["ftp://h/x", "sftp://h/x", "models:/m/1", "gopher://h/x", "x:y"])
def test_uri_with_another_scheme_is_forbidden(uri):
    with pytest.raises(ForbiddenUriError, match="is not supported"):
        check_uri(uri, SERVER)


def test_invalid_uri_is_forbidden():
    with pytest.raises(ForbiddenUriError, match="not a URI"):
        check_uri("http://[x", SERVER)


def test_port_of_the_uri_must_be_the_servers():
    check_uri("mlflow-artifacts://127.0.0.1:5000/0", "http://127.0.0.1:5000")
    with pytest.raises(ForbiddenUriError):
        check_uri("mlflow-artifacts://127.0.0.1/0", "http://127.0.0.1:5000")


def test_forbidden_uri_of_a_run_is_refused(monkeypatch):
    monkeypatch.setattr(resolve, "uri_of_run", lambda *_: "http://evil.example/x")
    with pytest.raises(ForbiddenUriError):
        resolve.open_location(
            "runs:/0123/model",
            tracking_uri=SERVER,
            s3=pytest.fail,
            scratch=location.ScratchFolder(),
        )
