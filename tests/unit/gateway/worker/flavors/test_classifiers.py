"""Probabilities of every kind of classifier: one item per row, and a name for each number."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gateway.worker.flavors import classifiers

DICE = np.random.default_rng(0)
TABLE = pd.DataFrame(DICE.normal(size=(40, 2)), columns=["a", "b"])
THREE = np.arange(40) % 3
WORDS = np.array(["no", "yes"])[np.arange(40) % 2]
SEVERAL = np.c_[THREE, np.arange(40) % 2]
LABELS = np.c_[THREE == 0, THREE > 0, np.arange(40) % 2].astype(int)


class Loaded:
    """A ``PyFuncModel`` as far as it matters here."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def get_raw_model(self) -> Any:
        return self.model


def offered(model: Any, loader: str = "mlflow.sklearn") -> tuple[Any, list[Any]]:
    """Return the probabilities of two rows as JSON has them, and the names."""
    found = classifiers.probabilities(Loaded(model), loader)
    assert isinstance(found, classifiers.Probabilities), found
    answer = found.function(TABLE.iloc[:2])
    rows = answer.tolist() if isinstance(answer, np.ndarray) else answer
    assert len(rows) == 2
    return rows, classifiers.names_of(found.class_names, rows)


@pytest.mark.parametrize("loader", ["mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm"])
def test_a_classifier_names_its_classes(loader):
    rows, names = offered(LogisticRegression().fit(TABLE, WORDS), loader)
    assert names == ["no", "yes"]
    assert [sum(row) for row in rows] == pytest.approx([1, 1])


def test_a_mixture_counts_its_components():
    model = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0)).fit(TABLE)
    rows, names = offered(model)
    assert names == [0, 1, 2]
    assert [int(np.argmax(row)) for row in rows] == model.predict(TABLE.iloc[:2]).tolist()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3, random_state=0),
        MultiOutputClassifier(LogisticRegression()),
        make_pipeline(StandardScaler(), MultiOutputClassifier(LogisticRegression())),
    ],
    ids=["forest", "of classifiers", "in a pipeline"],
)
def test_several_outputs_have_a_list_for_each(model):
    model.fit(TABLE, SEVERAL)
    rows, names = offered(model)
    assert names == [[0, 1, 2], [0, 1]]
    for row, predicted in zip(rows, model.predict(TABLE.iloc[:2]), strict=True):
        best = [labels[int(np.argmax(one))] for labels, one in zip(names, row, strict=True)]
        assert best == predicted.tolist()


def test_outputs_with_as_many_classes_are_one_array():
    rows, names = offered(RandomForestClassifier(3, random_state=0).fit(TABLE, LABELS))
    assert (np.shape(rows), names) == ((2, 3, 2), [[0, 1]] * 3)


def test_a_chain_has_no_and_yes_for_each_output():
    model = ClassifierChain(LogisticRegression()).fit(TABLE, LABELS)
    rows, names = offered(model)
    assert names == [[0, 1]] * 3
    assert np.argmax(rows, axis=2).tolist() == model.predict(TABLE.iloc[:2]).tolist()


@pytest.mark.parametrize(
    "around",
    [
        lambda chain: chain,
        lambda chain: make_pipeline(StandardScaler(), chain),
        lambda chain: GridSearchCV(chain, {}, cv=2, scoring=lambda *_: 1.0),
        lambda chain: make_pipeline(
            GridSearchCV(make_pipeline(chain), {}, cv=2, scoring=lambda *_: 1.0)
        ),
    ],
    ids=["itself", "in a pipeline", "found by a search", "in both"],
)
def test_a_chain_in_another_order_names_the_classes_of_each_output(around):
    outputs = np.c_[TABLE["a"] > 0, TABLE["b"] > 0, TABLE["a"] > TABLE["b"]] + [0, 4, 7]
    model = around(ClassifierChain(LogisticRegression(), order=[2, 0, 1])).fit(TABLE, outputs)
    rows, names = offered(model)
    assert names == [[0, 1], [4, 5], [7, 8]]
    best = [[names[n][int(np.argmax(one))] for n, one in enumerate(row)] for row in rows]
    assert best == model.predict(TABLE.iloc[:2]).tolist()


def test_labels_have_a_number_each():
    rows, names = offered(OneVsRestClassifier(LogisticRegression()).fit(TABLE, LABELS))
    assert (np.shape(rows), names) == ((2, 3), [0, 1, 2])


def test_a_library_that_names_two_classes_for_three_labels_is_not_believed():
    assert classifiers.names_of([0, 1], [[0.1, 0.2, 0.3]]) == [0, 1, 2]
    assert classifiers.names_of([0, 1], []) == [0, 1]


@pytest.mark.parametrize(
    ("model", "loader", "why"),
    [
        (LinearRegression(), "mlflow.sklearn", "LinearRegression has no predict_proba"),
        (object(), "mlflow.lightgbm", "object has no predict_proba"),
        (None, "mlflow.pytorch", "loaded by mlflow.pytorch"),
        (None, "", "a loader of its own"),
    ],
)
def test_what_has_none_says_why(model, loader, why):
    told = classifiers.probabilities(Loaded(model), loader)
    assert isinstance(told, str)
    assert told.startswith("the model has no class probabilities: ")
    assert why in told
