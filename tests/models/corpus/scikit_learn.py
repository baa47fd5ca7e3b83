"""Estimators of scikit-learn on tables, matrices and texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging, inferred

_COLUMNS = {"a": [0.5, 6.25, 3.0], "b": [1.5, 2.0, 7.75], "c": [4.0, 0.25, 1.0]}
_MIXED: dict[str, list[Any]] = {
    "city": ["Oslo", "Rome", "Oslo"],
    "area": [50.5, 80.0, 120.25],
    "rooms": [2, 3, 5],
    "garden": [False, True, True],
}
_TEXTS = {"text": ["good and cheap", "bad", "good, not cheap"]}
_GAPS: dict[str, list[Any]] = {"a": [0.5, None, 3.0], "b": [1.5, 2.0, None], "n": [1, 2, 3]}


def _frame(columns: bodies.Columns = _COLUMNS) -> pd.DataFrame:
    return pd.DataFrame(dict(columns))


def _training(rows: int = 60) -> pd.DataFrame:
    data = np.random.default_rng(7).uniform(0, 8, (rows, 3))
    return pd.DataFrame(data, columns=["a", "b", "c"])


def _labels(names: tuple[Any, ...], rows: int = 60) -> Any:
    return np.array(names)[(np.arange(rows) * 7 // 5) % len(names)]


def _logged(
    model: Any, example: Any, *, signature: Any = "inferred", predict_fn: str = "predict"
) -> Logging:
    """Return an estimator that is logged with the signature that its example gives."""
    if isinstance(signature, str):
        answers = getattr(model, predict_fn)(example)
        if hasattr(answers, "toarray") or isinstance(answers, tuple):
            answers = None
        signature = inferred(example, answers)
    arguments = {
        "sk_model": model,
        "signature": signature,
        "pyfunc_predict_fn": predict_fn,
        "serialization_format": "cloudpickle",
    }
    return Logging("sklearn", arguments, example)


def _fitted(
    make: Callable[[], Any], targets: Any = None, *, predict_fn: str = "predict"
) -> Callable[[], Logging]:
    def build() -> Logging:
        model = make()
        model.fit(_training(), *([] if targets is None else [targets]))
        return _logged(model, _frame(), predict_fn=predict_fn)

    return build


def _classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def _forest() -> Any:
    return RandomForestClassifier(5, random_state=0)


def _boosting() -> Any:
    return HistGradientBoostingRegressor(max_iter=5, random_state=0)


def _as_skops() -> Logging:
    """The default format, which holds no foreign code."""
    logging = _fitted(_classifier, _labels(("low", "high")))()
    arguments = {**logging.arguments, "serialization_format": "skops"}
    return Logging("sklearn", arguments, logging.example)


def _on_a_matrix() -> Logging:
    matrix = _frame().to_numpy()
    return _logged(_classifier().fit(_training().to_numpy(), _labels((0, 1))), matrix)


def _on_float32() -> Logging:
    matrix = _frame().to_numpy().astype("float32")
    return _logged(LinearRegression().fit(_training().to_numpy(), np.arange(60.0)), matrix)


def _without_signature() -> Logging:
    model = LinearRegression().fit(_training(), np.arange(60.0))
    return _logged(model, _frame(), signature=False)


def _on_columns_without_names() -> Logging:
    frame = pd.DataFrame(_frame().to_numpy())
    return _logged(LinearRegression().fit(_training().to_numpy(), np.arange(60.0)), frame)


def _on_float32_columns() -> Logging:
    frame = _frame().astype("float32")
    return _logged(LinearRegression().fit(_training(), np.arange(60.0)), frame)


def _on_whole_columns() -> Logging:
    frame = _frame().astype("int64")
    return _logged(_forest().fit(_training().astype("int64"), _labels((0, 1))), frame)


def _on_mixed_columns() -> Logging:
    table = pd.DataFrame(_MIXED)
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough"
    )
    return _logged(make_pipeline(encode, LinearRegression()).fit(table, [1.0, 2.0, 4.0]), table)


def _on_texts() -> Logging:
    table = pd.DataFrame(_TEXTS)
    words = make_column_transformer((TfidfVectorizer(), "text"))
    model = make_pipeline(words, LogisticRegression()).fit(table, ["+", "-", "+"])
    return _logged(model, table)


def _words_of_texts() -> Logging:
    table = pd.DataFrame(_TEXTS)
    words = make_column_transformer((TfidfVectorizer(), "text")).fit(table)
    return _logged(words, table, predict_fn="transform")


def _on_gaps() -> Logging:
    table = pd.DataFrame({name: pd.Series(values) for name, values in _GAPS.items()})
    return _logged(make_pipeline(SimpleImputer(), LinearRegression()).fit(table, [1, 2, 4]), table)


def _neighbours() -> Logging:
    model = KNeighborsClassifier(3).fit(_training(), _labels((0, 1)))
    return _logged(model, _frame(), predict_fn="kneighbors")


_TABLE = bodies.of_columns(_COLUMNS) | bodies.faults_of_columns(_COLUMNS)
_FORMS = bodies.of_columns(_COLUMNS)
_MATRIX = _frame().to_numpy().tolist()
_TENSOR = bodies.of_tensor(_MATRIX) | bodies.faults_of_tensor(_MATRIX)
_TWO = np.column_stack([_labels((0, 1)), _labels(("x", "y", "z"))])


CASES = (
    Case("sklearn-skops", _as_skops, _FORMS),
    Case("sklearn-names", _fitted(_forest, _labels(("low", "high"))), _TABLE),
    Case("sklearn-regressor", _fitted(LinearRegression, np.arange(60.0)), _TABLE),
    *(
        Case(f"sklearn-{name}", build, _FORMS)
        for name, build in (
            ("numbers", _fitted(_classifier, _labels((0, 1, 2)))),
            ("booleans", _fitted(_classifier, _labels((False, True)))),
            ("regressors", _fitted(LinearRegression, np.ones((60, 2)))),
            ("classifiers", _fitted(lambda: MultiOutputClassifier(LogisticRegression()), _TWO)),
            ("clusters", _fitted(lambda: KMeans(3, n_init=1, random_state=0))),
            ("outliers", _fitted(lambda: IsolationForest(n_estimators=5, random_state=0))),
            ("mixture", _fitted(lambda: GaussianMixture(2, random_state=0))),
            ("transform", _fitted(StandardScaler, predict_fn="transform")),
            ("neighbours", _neighbours),
            (
                "probabilities",
                _fitted(_classifier, _labels((0, 1)), predict_fn="predict_proba"),
            ),
            (
                "log-probabilities",
                _fitted(_forest, _labels((0, 1)), predict_fn="predict_log_proba"),
            ),
        )
    ),
    Case("sklearn-boosting", _fitted(_boosting, np.arange(60.0)), _TABLE),
    Case("sklearn-matrix", _on_a_matrix, _TENSOR),
    Case("sklearn-float32-matrix", _on_float32, _TENSOR),
    Case("sklearn-no-signature", _without_signature, _TABLE | {"matrix": {"inputs": _MATRIX}}),
    Case("sklearn-no-names", _on_columns_without_names, _TENSOR | _FORMS),
    Case("sklearn-float32-columns", _on_float32_columns, _TABLE),
    Case(
        "sklearn-whole-columns",
        _on_whole_columns,
        _TABLE | bodies.of_columns({"a": [1, 2], "b": [3, 4], "c": [5, 6]}),
    ),
    Case("sklearn-mixed-columns", _on_mixed_columns, bodies.of_columns(_MIXED)),
    Case("sklearn-texts", _on_texts, bodies.of_columns(_TEXTS)),
    Case("sklearn-words", _words_of_texts, bodies.of_columns(_TEXTS)),
    Case("sklearn-gaps", _on_gaps, bodies.of_columns(_GAPS)),
)
