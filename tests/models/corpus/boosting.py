"""Boosted trees: each library's own kind of model, and its estimators for scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Document, Logging, logged

_COLUMNS = {"a": [0.5, 6.25, 3.0], "b": [1.5, 2.0, 7.75], "c": [4.0, 0.25, 1.0]}
_MIXED: dict[str, list[Any]] = {"city": ["Oslo", "Rome", "Oslo"], "area": [50.5, 80.0, 120.25]}
_EXAMPLE = pd.DataFrame(_COLUMNS)


def _training(rows: int = 60) -> tuple[pd.DataFrame, Any]:
    data = np.random.default_rng(7).uniform(0, 8, (rows, 3))
    frame = pd.DataFrame(data, columns=list(_COLUMNS))
    return frame, (frame["a"] + frame["b"] > frame["c"] + 4).astype("int64")


def _xgboost(kind: str) -> Callable[[], Logging]:
    def build() -> Logging:
        import xgboost

        frame, labels = _training()
        model = getattr(xgboost, kind)(n_estimators=5, max_depth=2)
        return logged(
            "xgboost", "xgb_model", model.fit(frame, labels), _EXAMPLE, model_format="json"
        )

    return build


def _xgboost_itself() -> Logging:
    import xgboost

    frame, labels = _training()
    matrix = xgboost.DMatrix(frame, labels)
    model = xgboost.train({"max_depth": 2, "objective": "binary:logistic"}, matrix, 5)
    return logged("xgboost", "xgb_model", model, _EXAMPLE, model_format="json")


def _lightgbm(kind: str) -> Callable[[], Logging]:
    def build() -> Logging:
        import lightgbm

        frame, labels = _training()
        model = getattr(lightgbm, kind)(n_estimators=5, min_child_samples=2, verbose=-1)
        return logged("lightgbm", "lgb_model", model.fit(frame, labels), _EXAMPLE)

    return build


def _lightgbm_itself() -> Logging:
    import lightgbm

    frame, labels = _training()
    data = lightgbm.Dataset(frame, labels)
    settings = {"objective": "binary", "min_data_in_leaf": 2, "verbose": -1}
    return logged("lightgbm", "lgb_model", lightgbm.train(settings, data, 5), _EXAMPLE)


def _catboost(kind: str) -> Callable[[], Logging]:
    def build() -> Logging:
        import catboost

        frame, labels = _training()
        model = getattr(catboost, kind)(iterations=5, depth=2, verbose=0, allow_writing_files=False)
        return logged("catboost", "cb_model", model.fit(frame, labels), _EXAMPLE)

    return build


def _catboost_with_words() -> Logging:
    import catboost

    frame = pd.DataFrame({name: values * 5 for name, values in _MIXED.items()})
    model = catboost.CatBoostClassifier(
        iterations=5, depth=2, verbose=0, cat_features=["city"], allow_writing_files=False
    )
    model.fit(frame, ["cheap", "dear", "dear"] * 5)
    return logged("catboost", "cb_model", model, pd.DataFrame(_MIXED))


_FORMS = bodies.of_columns(_COLUMNS)
_FAULTS = _FORMS | bodies.faults_of_columns(_COLUMNS)


_BUILT: dict[str, tuple[Callable[[], Logging], dict[str, Document]]] = {
    "xgboost-classifier": (_xgboost("XGBClassifier"), _FAULTS),
    "xgboost-regressor": (_xgboost("XGBRegressor"), _FORMS),
    "xgboost-itself": (_xgboost_itself, _FORMS),
    "lightgbm-classifier": (_lightgbm("LGBMClassifier"), _FAULTS),
    "lightgbm-regressor": (_lightgbm("LGBMRegressor"), _FORMS),
    "lightgbm-itself": (_lightgbm_itself, _FORMS),
    "catboost-classifier": (_catboost("CatBoostClassifier"), _FORMS),
    "catboost-regressor": (_catboost("CatBoostRegressor"), _FORMS),
    "catboost-words": (_catboost_with_words, bodies.of_columns(_MIXED)),
}
CASES = tuple(
    Case(name, build, forms, needs=(name.partition("-")[0],))
    for name, (build, forms) in _BUILT.items()
)
