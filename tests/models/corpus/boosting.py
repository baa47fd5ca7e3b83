"""Boosted trees: each library's own kind of model, and its estimators for scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging

_COLUMNS = {"a": [0.5, 6.25, 3.0], "b": [1.5, 2.0, 7.75], "c": [4.0, 0.25, 1.0]}
_MIXED: dict[str, list[Any]] = {"city": ["Oslo", "Rome", "Oslo"], "area": [50.5, 80.0, 120.25]}


def _training(rows: int = 60) -> tuple[pd.DataFrame, Any]:
    data = np.random.default_rng(7).uniform(0, 8, (rows, 3))
    frame = pd.DataFrame(data, columns=list(_COLUMNS))
    return frame, (frame["a"] + frame["b"] > frame["c"] + 4).astype("int64")


def _logged(flavor: str, key: str, model: Any, **more: Any) -> Logging:
    from mlflow.models import infer_signature

    example = pd.DataFrame(_COLUMNS)
    return Logging(flavor, {key: model, "signature": infer_signature(example), **more}, example)


def _xgboost(kind: str, **settings: Any) -> Callable[[], Logging]:
    def build() -> Logging:
        import xgboost

        frame, labels = _training()
        model = getattr(xgboost, kind)(n_estimators=5, max_depth=2, **settings)
        return _logged("xgboost", "xgb_model", model.fit(frame, labels), model_format="json")

    return build


def _xgboost_itself() -> Logging:
    import xgboost

    frame, labels = _training()
    matrix = xgboost.DMatrix(frame, labels)
    model = xgboost.train({"max_depth": 2, "objective": "binary:logistic"}, matrix, 5)
    return _logged("xgboost", "xgb_model", model, model_format="json")


def _lightgbm(kind: str) -> Callable[[], Logging]:
    def build() -> Logging:
        import lightgbm

        frame, labels = _training()
        model = getattr(lightgbm, kind)(n_estimators=5, min_child_samples=2, verbose=-1)
        return _logged("lightgbm", "lgb_model", model.fit(frame, labels))

    return build


def _lightgbm_itself() -> Logging:
    import lightgbm

    frame, labels = _training()
    data = lightgbm.Dataset(frame, labels)
    settings = {"objective": "binary", "min_data_in_leaf": 2, "verbose": -1}
    return _logged("lightgbm", "lgb_model", lightgbm.train(settings, data, 5))


def _catboost(kind: str) -> Callable[[], Logging]:
    def build() -> Logging:
        import catboost

        frame, labels = _training()
        model = getattr(catboost, kind)(iterations=5, depth=2, verbose=0, allow_writing_files=False)
        return _logged("catboost", "cb_model", model.fit(frame, labels))

    return build


def _catboost_with_words() -> Logging:
    import catboost
    from mlflow.models import infer_signature

    frame = pd.DataFrame({name: values * 5 for name, values in _MIXED.items()})
    model = catboost.CatBoostClassifier(
        iterations=5, depth=2, verbose=0, cat_features=["city"], allow_writing_files=False
    )
    model.fit(frame, ["cheap", "dear", "dear"] * 5)
    example = pd.DataFrame(_MIXED)
    arguments = {"cb_model": model, "signature": infer_signature(example)}
    return Logging("catboost", arguments, example)


_FORMS = bodies.of_columns(_COLUMNS)
_FAULTS = _FORMS | bodies.faults_of_columns(_COLUMNS)


def _case(name: str, build: Callable[[], Logging], needs: str) -> Case:
    return Case(name, build, _FORMS, needs=(needs,))


CASES = (
    Case(
        "xgboost-classifier",
        _xgboost("XGBClassifier"),
        _FAULTS,
        needs=("xgboost",),
    ),
    _case("xgboost-regressor", _xgboost("XGBRegressor"), "xgboost"),
    _case("xgboost-itself", _xgboost_itself, "xgboost"),
    Case(
        "lightgbm-classifier",
        _lightgbm("LGBMClassifier"),
        _FAULTS,
        needs=("lightgbm",),
    ),
    _case("lightgbm-regressor", _lightgbm("LGBMRegressor"), "lightgbm"),
    _case("lightgbm-itself", _lightgbm_itself, "lightgbm"),
    _case("catboost-classifier", _catboost("CatBoostClassifier"), "catboost"),
    _case("catboost-regressor", _catboost("CatBoostRegressor"), "catboost"),
    Case(
        "catboost-words",
        _catboost_with_words,
        bodies.of_columns(_MIXED),
        needs=("catboost",),
    ),
)
