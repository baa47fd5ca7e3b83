"""The models of the demonstration: real ones, trained here and registered in MLflow.

``churn`` says whether a customer leaves; its four versions judge differently, so that an answer
shows which version gave it. ``wine`` is scikit-learn's own data set.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHURN = "churn"
WINE = "wine"
CHAMPION = "champion"
COLUMNS = ("tenure_months", "monthly_charge", "support_calls")
PROBE_ROWS = 20
_SEED = 7

Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class Trained:
    """The predictions of every version, computed here to check answers.

    Attributes:
        customer: A customer about whom versions 1 and 2 of ``churn`` disagree.
        rows: Other customers; every two versions disagree about one of them.
        for_customer: The predictions for the customer, by version of ``churn``.
        for_rows: The answers for ``rows``, by version of ``churn``.
        wine: One wine, as a column model's ``dataframe_split``.
    """

    customer: Row
    rows: list[Row]
    for_customer: dict[int, str]
    for_rows: dict[int, list[str]]
    wine: dict[str, Any]


def prepare_client(mlflow_url: str) -> None:
    """Point MLflow's client in this process at the server, and quiet it. Call it first."""
    os.environ["MLFLOW_TRACKING_URI"] = mlflow_url
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "30"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def train_and_register(report: Callable[[str], None], log: Path) -> Trained:
    """Train all versions, register them, and point both champions at version 1.

    Args:
        report: Receives a sentence about each registered version.
        log: Receives the standard error of MLflow's client.
    """
    with log.open("w") as file, contextlib.redirect_stderr(file):
        return _train_and_register(report)


def _train_and_register(report: Callable[[str], None]) -> Trained:
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    features, labels = _customers()
    versions: dict[int, Any] = {}
    for version, (what, model) in enumerate(_churn_models(), start=1):
        versions[version] = model.fit(features[:2000], labels[:2000])
        accuracy = float(model.score(features[2000:], labels[2000:]))
        _register(CHURN, model, features.head(3), accuracy)
        report(f"churn version {version}: {what}, accuracy {accuracy:.2f}")
    wine = _wine(report)
    client = MlflowClient()
    for name in (CHURN, WINE):
        client.set_registered_model_alias(name, CHAMPION, "1")
    report("both models: alias champion → version 1")
    unseen = features[2000:]
    answers = {version: model.predict(unseen) for version, model in versions.items()}
    chosen = _distinguishing_rows(answers)
    records = [{name: float(row[name]) for name in COLUMNS} for _, row in unseen.iterrows()]
    by_version = {
        version: [str(predicted[index]) for index in chosen]
        for version, predicted in answers.items()
    }
    return Trained(
        customer=records[chosen[0]],
        rows=[records[index] for index in chosen],
        for_customer={version: predicted[0] for version, predicted in by_version.items()},
        for_rows=by_version,
        wine=wine,
    )


def artifact_file(model: str, version: int, artifacts: Path) -> Path:
    """Return the biggest file of a version, in the folder where the MLflow server keeps it."""
    from mlflow import MlflowClient

    uri = MlflowClient().get_model_version_download_uri(model, str(version))
    folder = artifacts / str(uri).removeprefix("mlflow-artifacts:").lstrip("/")
    return max((path for path in folder.rglob("*") if path.is_file()), key=_size)


def _size(path: Path) -> int:
    return path.stat().st_size


def _customers() -> tuple[Any, Any]:
    """Make customers up, with labels that no linear model fits, so that models differ."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(_SEED)
    tenure = random.uniform(1, 72, 3000).round()
    charge = random.uniform(15, 120, 3000).round(2)
    calls = random.poisson(1.5, 3000).astype(float)
    unhappy = (charge > 80) & (tenure < 24) | (calls > 3) & (tenure < 48)  # noqa: PLR2004 (made up)
    flipped = random.random(3000) < 0.08  # noqa: PLR2004 (made up as well)
    labels = np.where(unhappy ^ flipped, "leaves", "stays")
    return pd.DataFrame(dict(zip(COLUMNS, (tenure, charge, calls), strict=True))), labels


def _churn_models() -> Iterator[tuple[str, Any]]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    yield "logistic regression", make_pipeline(StandardScaler(), LogisticRegression())
    forest = RandomForestClassifier(n_estimators=40, max_depth=6, random_state=_SEED)
    yield "random forest", forest
    squares = PolynomialFeatures(degree=2)
    yield (
        "regression on squares",
        make_pipeline(StandardScaler(), squares, LogisticRegression(C=0.1)),
    )
    yield "small forest", RandomForestClassifier(n_estimators=5, max_depth=3, random_state=_SEED)


def _wine(report: Callable[[str], None]) -> dict[str, Any]:
    """Train and register ``wine``; return a request about one wine."""
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    accuracy = float(model.score(features, labels))
    _register(WINE, model, features.head(3), accuracy)
    report(f"wine version 1: logistic regression, accuracy {accuracy:.2f}")
    one = features.iloc[[100]]
    return {"columns": list(one.columns), "data": [[float(v) for v in one.iloc[0]]]}


def _register(name: str, model: Any, example: Any, accuracy: float) -> None:
    import mlflow
    from mlflow.models import infer_signature

    with mlflow.start_run(run_name=name):
        mlflow.log_metric("accuracy", accuracy)
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            input_example=example,
            signature=infer_signature(example, model.predict(example)),
            # Named, because finding them out takes MLflow twenty seconds a model.
            pip_requirements=_requirements("mlflow", "scikit-learn", "skops", "numpy", "pandas"),
            skops_trusted_types=["sklearn.tree._tree.Tree"],
        )


def _requirements(*names: str) -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def _distinguishing_rows(answers: dict[int, Any]) -> list[int]:
    """Choose rows: first one for which versions 1 and 2 differ, then some for every pair."""
    count = len(answers[1])
    pairs = [(a, b) for a in answers for b in answers if a < b]
    chosen: list[int] = []
    for a, b in pairs:
        differs = [index for index in range(count) if answers[a][index] != answers[b][index]]
        chosen += [index for index in differs if index not in chosen][:3]
    chosen += [index for index in range(count) if index not in chosen]
    return chosen[:PROBE_ROWS]
