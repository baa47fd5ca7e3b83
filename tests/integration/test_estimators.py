"""Estimators on the ways that warm-up proves: joined, on arrays, with probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gateway.worker.protocol.messages import Failed, Reply
from tests.integration.worker_process import refused, serving, stop_forkserver, store
from tests.models.estimators import (
    SavedEstimator,
    ThresholdInShares,
    Unready,
    centred,
    labelled,
)

TABLE = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 5.0, 2.0]})


@pytest.fixture(scope="module", autouse=True)
def forkserver_ends() -> Iterator[None]:
    yield
    stop_forkserver()


def test_a_classifier_with_several_outputs_has_probabilities_of_each(tmp_path: Path):
    from sklearn.ensemble import RandomForestClassifier

    answers = [[0, 1], [1, 0], [2, 1], [1, 0]]
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(TABLE, answers)
    saved = SavedEstimator(model, TABLE)
    with serving(store(saved, tmp_path)) as (worker, _):
        message, answer = worker.predict(saved.payload(4), probabilities=True)
        assert isinstance(message, Reply), message
        assert answer["predictions"] == saved.expected(saved.payload(4))
        assert answer["class_names"] == [[0, 1, 2], [0, 1]]
        for output, likely in enumerate(model.predict_proba(TABLE)):
            got = [row[output] for row in answer["probabilities"]]
            np.testing.assert_allclose(got, likely)


def test_a_mixture_has_probabilities_of_its_components(tmp_path: Path):
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(2, random_state=0).fit(TABLE)
    saved = SavedEstimator(model, TABLE)
    with serving(store(saved, tmp_path)) as (worker, _):
        _, answer = worker.predict(saved.payload(4), probabilities=True)
        assert answer["class_names"] == [0, 1]
        np.testing.assert_allclose(answer["probabilities"], model.predict_proba(TABLE))


def test_a_model_without_probabilities_says_so_and_goes_on(tmp_path: Path):
    saved = SavedEstimator(boosted(), TABLE)
    with serving(store(saved, tmp_path)) as (worker, report):
        assert report.batching == "joined"
        asked = [json.dumps(saved.payload(1)).encode()] * 3
        for _ in worker.send_together(asked, probabilities=True):
            _, message, _ = worker.receive()
            assert isinstance(message, Failed)
            assert (message.code, message.details) == (
                "invalid_input",
                [[None, "probabilities", "the model has none"]],
            )
            assert "HistGradientBoostingRegressor has no predict_proba" in message.message
        assert isinstance(worker.predict(saved.payload(1))[0], Reply)


def test_labels_of_rows_reach_an_estimator_that_asks_for_them(tmp_path: Path):
    """It is called on arrays otherwise, which have none."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = make_pipeline(FunctionTransformer(labelled), forest())
    saved = SavedEstimator(model.fit(TABLE, [0, 1, 0, 1]), TABLE)
    split: dict[str, Any] = {"columns": ["a", "b"], "data": [[0.0, 1.0], [3.0, 2.0]]}
    with serving(store(saved, tmp_path)) as (worker, _):
        plain = worker.predict({"dataframe_split": split})[1]["predictions"]
        other = worker.predict({"dataframe_split": split | {"index": [100, 0]}})[1]["predictions"]
        given = pd.DataFrame(split["data"], columns=split["columns"], index=[100, 0])
        assert other == model.predict(given).tolist()
        assert plain == model.predict(given.reset_index(drop=True)).tolist()


def test_what_nobody_foresaw_is_a_failed_load_with_a_reason(tmp_path: Path):
    model = Unready().fit(TABLE, [0, 0, 1, 1])
    report = refused(store(SavedEstimator(model, TABLE), tmp_path))
    assert (report.failure, report.message) == (
        "load_failed",
        "preparing the model raised ZeroDivisionError",
    )


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=3, random_state=0).fit(TABLE, [0, 1, 0, 1])


def boosted() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=1).fit(
        TABLE, [0.0, 1.0, 2.0, 3.0]
    )


def of_centred() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    many = pd.DataFrame({"a": np.arange(200.0), "b": 10 * np.arange(200.0)})
    model = make_pipeline(FunctionTransformer(centred), LogisticRegression())
    return model.fit(many, (many["a"] > 120.0).astype(int))


def of_words() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectors = ColumnTransformer([("words", TfidfVectorizer(), "text")])
    return make_pipeline(vectors, LogisticRegression()).fit(WORDS, [0, 1, 1])


WORDS = pd.DataFrame({"text": ["good day", "bad day", "bad night"]})


@pytest.mark.parametrize(
    ("model", "example", "batching", "call_path"),
    [
        (forest(), TABLE.iloc[:2], "joined", "fast"),
        (of_words(), WORDS.iloc[:2], "joined", "pyfunc"),
        (of_centred(), TABLE.iloc[:1], "alone", "fast"),
        (ThresholdInShares().fit(TABLE, [0, 0, 1, 1]), TABLE.iloc[:2] + 0.5, "alone", "fast"),
    ],
    ids=["forest", "words", "centred", "shares"],
)
def test_joined_is_what_answers_the_same_with_its_probabilities(
    tmp_path: Path, model: Any, example: Any, batching: str, call_path: str
):
    saved = SavedEstimator(model, example)
    with serving(store(saved, tmp_path)) as (worker, report):
        assert (report.batching, report.call_path) == (batching, call_path), report
        message, answer = worker.predict(saved.payload(), probabilities=True)
        assert isinstance(message, Reply), message
        np.testing.assert_allclose(answer["probabilities"], model.predict_proba(example.iloc[:1]))


def test_what_the_estimator_is_not_given_on_arrays_is_answered_like_the_pyfunc(tmp_path: Path):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    optional = Schema([ColSpec("double", "a"), ColSpec("long", "b", required=False)])
    example = TABLE.iloc[:2].astype({"b": "int64"})
    saved = SavedEstimator(boosted(), example, ModelSignature(optional))
    with serving(store(saved, tmp_path)) as (worker, report):
        assert report.call_path == "fast", report
        body = {"dataframe_split": {"columns": ["a", "b"], "data": [[3.0, None], [0.0, 5]]}}
        message, _ = worker.predict(body)
        assert isinstance(message, Failed)
        assert message.code == "invalid_input"  # so MLflow says it


def test_a_pipeline_that_scales_in_place_is_asked_twice_for_the_same(tmp_path: Path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = TABLE.to_numpy()
    model = make_pipeline(StandardScaler(copy=False), LogisticRegression())
    saved = SavedEstimator(model.fit(numbers.copy(), [0, 0, 1, 1]), numbers)
    with serving(store(saved, tmp_path)) as (worker, report):
        assert (report.batching, report.call_path) == ("joined", "fast"), report
        _, answer = worker.predict(saved.payload(4), probabilities=True)
        np.testing.assert_allclose(answer["probabilities"], model.predict_proba(numbers.copy()))
