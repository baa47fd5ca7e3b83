"""Which scikit-learn estimators are called on arrays: ordinary ones, and none that tells apart."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import discriminant_analysis, ensemble, linear_model, naive_bayes, neighbors, svm, tree
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from gateway.worker.loading import perturbation
from gateway.worker.loading.proofs import fast_path
from gateway.worker.rows.inputs import COLUMNS, TENSOR, Inputs
from tests.fakes.asked import ask_all

ROWS = 60
_dice = np.random.default_rng(3)
FLOATS = pd.DataFrame(
    _dice.normal(size=(ROWS, 4)) * [1, 2, 30, 0.1] + [5, 3, 40, 1], columns=list("abcd")
)
WHOLE = pd.DataFrame(_dice.integers(0, 9, size=(ROWS, 4)), columns=list("abcd"))
MIXED = pd.DataFrame(
    {
        "a": FLOATS.a,
        "b": WHOLE.b,
        "c": FLOATS.c.astype("float32"),
        "d": WHOLE.d.astype("int32"),
    }
)
TABLES = {"floats": FLOATS, "whole": WHOLE, "mixed": MIXED}

REGRESSORS = [
    linear_model.LinearRegression(),
    linear_model.Ridge(),
    linear_model.PoissonRegressor(),
    ensemble.RandomForestRegressor(3, random_state=0),
    ensemble.HistGradientBoostingRegressor(max_iter=3),
    tree.DecisionTreeRegressor(random_state=0),
    neighbors.KNeighborsRegressor(),
    svm.SVR(),
    PLSRegression(2),
    make_pipeline(StandardScaler(), linear_model.Ridge()),
    make_pipeline(SimpleImputer(), PolynomialFeatures(2), linear_model.LinearRegression()),
]
CLASSIFIERS = [
    make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
    linear_model.RidgeClassifier(),
    ensemble.RandomForestClassifier(3, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=3),
    tree.DecisionTreeClassifier(random_state=0),
    svm.SVC(),
    svm.LinearSVC(),
    neighbors.KNeighborsClassifier(),
    neighbors.NearestCentroid(),
    naive_bayes.GaussianNB(),
    discriminant_analysis.LinearDiscriminantAnalysis(),
    MLPClassifier((4,), max_iter=5, random_state=0),
    KMeans(3, random_state=0),
    ensemble.IsolationForest(n_estimators=3, random_state=0),
]
CATEGORIES = pd.DataFrame(_dice.integers(0, 3, size=(ROWS, 3)), columns=list("abc"))
OF_CATEGORIES = [
    naive_bayes.CategoricalNB(),
    naive_bayes.MultinomialNB(),
    make_pipeline(OneHotEncoder(), linear_model.LogisticRegression()),
    make_pipeline(
        ColumnTransformer([("one", OneHotEncoder(), [0]), ("rest", StandardScaler(), [1, 2])]),
        linear_model.LogisticRegression(),
    ),
]


def chosen(estimator: Any, example: Any) -> tuple[Any, str]:
    """What warm-up chooses for a fitted estimator with this example."""
    if isinstance(example, pd.DataFrame):
        arrays = {str(name): example[name].to_numpy() for name in example}
        inputs = Inputs(COLUMNS, arrays, len(example))
    else:
        inputs = Inputs(TENSOR, {"": example}, len(example))
    varied = perturbation.vary(inputs)
    further = [*perturbation.scatter(inputs), *perturbation.vary_far(inputs, whole=True)]
    return ask_all(
        fast_path.choose(
            SimpleNamespace(get_raw_model=lambda: estimator),
            lambda given: estimator.predict(given.native()),
            "mlflow.sklearn",
            "predict",
            varied,
            further=further,
        )
    )


def named(estimators: list[Any]) -> list[Any]:
    return [
        pytest.param(one, id=repr(getattr(one, "steps", [("", one)])[-1][1])) for one in estimators
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("estimator", named([*REGRESSORS, *CLASSIFIERS]))
def test_ordinary_estimators_are_called_on_arrays(estimator: Any, table: str) -> None:
    known = TABLES[table]
    numbers = known.to_numpy(dtype=float)
    wanted = np.abs(numbers[:, 0] * 2 - numbers[:, 1] + 0.1 * numbers[:, 2])
    if estimator in CLASSIFIERS:
        wanted = np.array(["x", "y", "z"])[np.digitize(wanted, np.quantile(wanted, [0.3, 0.6]))]
    model = clone(estimator).fit(known, wanted)
    for rows in (1, 5):
        fast, reason = chosen(model, known.iloc[:rows])
        assert fast, reason


def test_whoever_is_called_on_arrays_does_not_miss_the_names() -> None:
    """Warnings are errors here."""
    model = linear_model.LinearRegression().fit(FLOATS, FLOATS.a)
    fast, reason = chosen(model, FLOATS.iloc[:5])
    assert fast, reason
    arrays = {str(name): FLOATS[name].to_numpy() for name in FLOATS}
    assert fast(Inputs(COLUMNS, arrays, ROWS)).tolist() == model.predict(FLOATS).tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", named(OF_CATEGORIES))
@pytest.mark.parametrize("rows", [1, 5])
def test_so_are_those_that_bear_few_numbers(estimator: Any, rows: int) -> None:
    model = clone(estimator).fit(CATEGORIES, CATEGORIES.a % 2)
    fast, reason = chosen(model, CATEGORIES.iloc[:rows])
    assert fast, reason


def test_so_are_those_that_were_trained_on_arrays() -> None:
    numbers = WHOLE.to_numpy()
    model = linear_model.LogisticRegression().fit(numbers, numbers[:, 0] > 4)
    fast, reason = chosen(model, numbers[:1])
    assert fast, reason


class _Odd(BaseEstimator):  # type: ignore[misc]  # not typed
    """Looks for its columns by name in a table, and by their places in an array."""

    def __init__(self, *, labels: bool = False) -> None:
        self.labels = labels

    def difference(self, given: Any) -> Any:
        table = hasattr(given, "columns")
        second, first = (given["b"], given["a"]) if table else (given[:, 0], given[:, 1])
        return np.asarray(second, dtype=float) - np.asarray(first, dtype=float)

    def predict(self, given: Any) -> Any:
        answer = self.difference(given)
        return (answer > 0).astype("int64") if self.labels else answer


class _OddScores(_Odd):
    """Tells apart in its scores alone."""

    def predict(self, given: Any) -> Any:
        return (np.asarray(given, dtype=float)[:, 0] > 1).astype("int64")

    def decision_function(self, given: Any) -> Any:
        return self.difference(given)


@pytest.mark.parametrize(
    "estimator", [_Odd(), _Odd(labels=True), _OddScores()], ids=["answers", "labels", "scores"]
)
@pytest.mark.parametrize("example", [{"a": [3], "b": [3]}, {"a": [2.5], "b": [2.5]}])
def test_columns_by_name_are_told_from_columns_by_place(estimator: Any, example: Any) -> None:
    fast, reason = chosen(estimator, pd.DataFrame(example))
    assert (fast, "different" in reason) == (None, True), reason


def test_one_that_answers_the_example_differently_is_not_called_on_arrays() -> None:
    path = chosen(_Odd(), pd.DataFrame({"a": [3.0, 1.0], "b": [2.0, 2.0]}))
    assert path == (None, "the bare model answers differently")


def test_answers_that_are_all_equal_prove_nothing() -> None:
    model = DummyClassifier().fit(WHOLE, np.zeros(ROWS))
    fast, reason = chosen(model, WHOLE.iloc[:1])
    assert (fast, "all equal" in reason) == (None, True), reason


def test_scattered_rows_stay_what_they_were() -> None:
    arrays = {
        "a": np.array([2], dtype="uint8"),
        "b": np.array([2.0], dtype="float32"),
        "c": np.array([-2], dtype="int64"),
        "d": np.array(["word"], dtype=object),
        "e": np.array([2**60], dtype="int64"),
        "f": np.array([np.nan]),
    }
    first, second = perturbation.scatter(Inputs(COLUMNS, arrays, 1))
    for one in (first, second):
        assert {name: array.dtype for name, array in one.arrays.items()} == {
            name: array.dtype for name, array in arrays.items()
        }
        assert (one.arrays["b"] >= 0).all()
        assert set(one.arrays["d"]) == {"word"}
        assert np.isnan(one.arrays["f"]).all()
    assert set(first.arrays["e"]) == {2**60}
    assert len(set(first.arrays["a"].tolist())) > 1
    assert (first.arrays["c"] < 0).any()
    assert second.arrays["c"].tolist() == first.arrays["e"].tolist(), "values change columns"
