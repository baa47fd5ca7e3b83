"""What an ML engineer does: log models, register them, move aliases; and what they should answer."""

import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

MODEL_CODE = Path(__file__).resolve().parent / "model_code"
ROWS = pd.DataFrame({"a": np.linspace(-2.0, 2.0, 24), "b": np.cos(np.arange(24.0))})
"""The rows that callers choose from, by their index."""
X_SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("double", "x")]), outputs=Schema([ColSpec("double", "y")])
)
X_EXAMPLE = pd.DataFrame({"x": [1.0, 2.0]})


@dataclass(frozen=True)
class Published:
    """A registered version. ``expected[row]`` is what it answers to that row of `ROWS`."""

    model: str
    version: int
    expected: list[float]


class Registry:
    """One test's corner of the registry: its models have names of their own, and go with it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = mlflow.MlflowClient(url)
        self._names: list[str] = []
        self._prefix = uuid.uuid4().hex[:8]

    def name(self, word: str) -> str:
        """A name that no other test uses."""
        name = f"{word}-{self._prefix}"
        if name not in self._names:
            self._names.append(name)
            self.client.create_registered_model(name)
        return name

    def publish(self, name: str, log: Callable[[], Any], *, experiment: str | None = None) -> int:
        """Log a model with ``log`` and register it; the version's number."""
        with _this_registry(self.url, experiment):
            info = log()
        made = self.client.create_model_version(
            name, source=f"models:/{info.model_id}", model_id=info.model_id
        )
        return int(made.version)

    def publish_tree(self, name: str, seed: int, *, experiment: str | None = None) -> Published:
        """A small pipeline whose answers, exact to the bit, no other seed gives."""
        model = tree(seed)
        version = self.publish(
            name,
            lambda: mlflow.sklearn.log_model(
                model,
                name="model",
                input_example=ROWS.head(3),
                signature=mlflow.models.infer_signature(ROWS, model.predict(ROWS)),
                pip_requirements=[],
                serialization_format="cloudpickle",
            ),
            experiment=experiment,
        )
        return Published(name, version, [float(y) for y in model.predict(ROWS)])

    def publish_witness(self, name: str, **config: Any) -> int:
        """The model of ``model_code/witness.py`` with this configuration."""
        return self.publish(
            name,
            lambda: mlflow.pyfunc.log_model(
                name="model",
                python_model=str(MODEL_CODE / "witness.py"),
                model_config=config,
                signature=X_SIGNATURE,
                input_example=X_EXAMPLE,
                pip_requirements=[],
            ),
        )

    def point(self, name: str, alias: str, version: int) -> None:
        """Move an alias: the whole of a promotion."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def files_of(self, name: str, version: int, root: Path) -> Path:
        """The folder in which a server that proxies artifacts under ``root`` keeps a version."""
        uri = self.client.get_model_version_download_uri(name, str(version))
        assert uri.startswith("mlflow-artifacts:/"), uri
        return root / uri.removeprefix("mlflow-artifacts:/").lstrip("/")

    def forget(self) -> None:
        """Take this test's models out of the registry, so that later nodes do not fetch them."""
        for name in self._names:
            self.client.delete_registered_model(name)
        self._names.clear()


def tree(seed: int) -> Any:
    """A fitted pipeline; trees compare and never add, so any batch gives the same bits."""
    dice = np.random.default_rng(seed)
    target = 1000.0 * seed + dice.normal(size=len(ROWS))
    return make_pipeline(StandardScaler(), DecisionTreeRegressor(random_state=0)).fit(ROWS, target)


def row_body(row: int) -> dict[str, Any]:
    """A body that asks for one row of `ROWS`."""
    return {"dataframe_split": ROWS.iloc[[row]].to_dict(orient="split")}


def x_body(*values: float) -> dict[str, Any]:
    """A body for a witness."""
    return {"dataframe_records": [{"x": value} for value in values]}


@contextmanager
def _this_registry(url: str, experiment: str | None) -> Iterator[None]:
    """Point mlflow's process-wide state at ``url``; its warnings are no concern of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        if experiment is not None:
            mlflow.set_experiment(experiment)
        else:
            mlflow.set_experiment("Default")
        yield


def expectations(published: Mapping[int, Published]) -> dict[int, list[float]]:
    """What each version answers, by its number."""
    return {version: each.expected for version, each in published.items()}
