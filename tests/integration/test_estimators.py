"""Estimators on the ways that warm-up proves: joined, on arrays, with probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from gateway.worker.messages import Reply
from tests.integration.worker_process import refused, serving, stop_forkserver, store
from tests.models.estimators import SavedEstimator, Unready

TABLE = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 5.0, 2.0]})


@pytest.fixture(scope="module", autouse=True)
def forkserver_ends() -> Iterator[None]:
    yield
    stop_forkserver()


def test_a_classifier_with_several_outputs_is_served_without_probabilities(tmp_path: Path):
    from sklearn.ensemble import RandomForestClassifier

    outputs = [[0, 1], [1, 0], [0, 1], [1, 0]]
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(TABLE, outputs)
    saved = SavedEstimator(model, TABLE)
    with serving(store(saved, tmp_path)) as (worker, _):
        message, answer = worker.predict(saved.payload(4), probabilities=True)
        assert isinstance(message, Reply), message
        assert answer["predictions"] == saved.expected(saved.payload(4))
        assert "probabilities" not in answer


def test_what_nobody_foresaw_is_a_failed_load_with_a_reason(tmp_path: Path):
    model = Unready().fit(TABLE, [0, 0, 1, 1])
    report = refused(store(SavedEstimator(model, TABLE), tmp_path))
    assert (report.failure, report.message) == (
        "load_failed",
        "preparing the model raised ZeroDivisionError",
    )
