"""What an ML engineer does: register models, move aliases; and what their versions answer."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

import mlflow

from registry_sync.artifacts.manifest import Manifest
from registry_sync.domain.tags import DIGEST_TAG
from tests.acceptance.traffic import ROWS
from tests.models.catalogue import BuildableModel, LinearModel, ScriptedModel


class Registry:
    """One test's corner of the registry: its models have names of their own, and go with it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = mlflow.MlflowClient(url)
        self._names: list[str] = []
        self._suffix = uuid.uuid4().hex[:8]

    def name(self, word: str) -> str:
        """A name that no other test uses."""
        name = f"{word}-{self._suffix}"
        if name not in self._names:
            self._names.append(name)
        return name

    def adopt(self, name: str) -> None:
        """Take a registered model that was made otherwise, to forget it with the others."""
        self._names.append(name)

    def forget_name(self, name: str) -> None:
        """Say that a name from `name` is not a registered model's."""
        self._names.remove(name)

    def publish(self, name: str, model: BuildableModel, experiment: str = "Default") -> int:
        """Register a model as the next version of ``name``; the version's number."""
        mlflow.set_tracking_uri(self.url)
        mlflow.set_experiment(experiment)
        return model.register(name, self.url)

    def publish_folder(self, name: str, folder: Path) -> int:
        """Upload a folder, and register it as the next version of ``name``, as scripts do."""
        mlflow.set_tracking_uri(self.url)
        with mlflow.start_run() as run:
            mlflow.log_artifacts(str(folder), "model")
        source = f"{run.info.artifact_uri}/model"
        return int(self.client.create_model_version(name, source, run.info.run_id).version)

    def publish_again(self, name: str, version: int) -> int:
        """Register the bytes of a version as the next one: they are fetched and verified anew."""
        return self.publish_as(name, name, version)

    def publish_as(self, name: str, other: str, version: int) -> int:
        """Register the bytes of another model's version as the next one of ``name``."""
        known = self.client.get_model_version(other, str(version))
        logged = known.source.removeprefix("models:/")
        made = self.client.create_model_version(name, known.source, model_id=logged)
        return int(made.version)

    def point(self, name: str, alias: str, version: int) -> None:
        """Move an alias: the whole of a promotion."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def proxied_files(self, name: str, version: int, root: Path) -> Path:
        """The folder in which a server that proxies artifacts under ``root`` keeps a version."""
        uri = self.client.get_model_version_download_uri(name, str(version))
        assert uri.startswith("mlflow-artifacts:/"), uri
        path: str = uri.removeprefix("mlflow-artifacts:").lstrip("/")
        return root / "artifacts" / path

    def stamp(self, name: str, version: int, root: Path) -> None:
        """Do what ``registry-gateway stamp`` does, without seconds of a process for each."""
        folder = self.proxied_files(name, version, root)
        files = (path for path in folder.rglob("*") if path.is_file())
        digests = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }
        digest = Manifest.of(digests).digest
        self.client.set_model_version_tag(name, str(version), DIGEST_TAG, digest)

    def forget(self) -> None:
        """Take this test's models out of the registry, so that later nodes do not fetch them."""
        for name in self._names:
            self.client.delete_registered_model(name)
        self._names.clear()


def row_body(row: int) -> dict[str, Any]:
    """A body that asks a `LinearModel` for one row."""
    return {"dataframe_split": {"columns": ["x1", "x2"], "data": [[float(row), 0.5]]}}


def row_answers(slope: float) -> list[float]:
    """What the `LinearModel` with this slope answers, run here, to every row."""
    model = LinearModel(slope)
    return [model.expected(row_body(row))[0] for row in range(ROWS)]


def x_body(*values: float) -> dict[str, Any]:
    """A body that asks a `ScriptedModel`."""
    return ScriptedModel().payload_of(*values)
