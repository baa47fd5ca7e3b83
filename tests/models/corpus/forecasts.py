"""Models that forecast: their answers are not one for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging

_SERIES = np.array([3.0, 4, 6, 5, 7, 9, 8, 10, 12, 11, 13, 15, 14, 16, 18, 17, 19, 21, 20, 22])
_STEPS = {"start": [20], "end": [24]}
_PERIODS = {"n_periods": [3]}
_DAYS = {"ds": ["2024-02-01", "2024-02-02", "2024-02-03"]}
_ROWS = {"a": [1.0, 2.5, 4.0], "b": [0.5, 0.0, 1.5]}


def _inferred(example: Any) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(example)


def _least_squares() -> Logging:
    import statsmodels.api as sm

    table = pd.DataFrame({"a": np.arange(10.0), "b": np.arange(10.0) ** 2})
    model = sm.OLS(table["a"] * 2 + table["b"] + 1, table).fit()
    example = pd.DataFrame(_ROWS)
    arguments = {"statsmodels_model": model, "signature": _inferred(example)}
    return Logging("statsmodels", arguments, example)


def _arima() -> Logging:
    from statsmodels.tsa.arima.model import ARIMA

    model = ARIMA(_SERIES, order=(1, 1, 0)).fit()
    example = pd.DataFrame(_STEPS)
    arguments = {"statsmodels_model": model, "signature": _inferred(example)}
    return Logging("statsmodels", arguments, example)


def _auto_arima() -> Logging:
    import pmdarima

    model = pmdarima.ARIMA((1, 1, 0)).fit(_SERIES)
    example = pd.DataFrame(_PERIODS)
    return Logging("pmdarima", {"pmdarima_model": model, "signature": _inferred(example)}, example)


def _prophet() -> Logging:
    from prophet import Prophet

    days = pd.date_range("2024-01-01", periods=len(_SERIES))
    settings: dict[str, Any] = {"uncertainty_samples": 0, "weekly_seasonality": False}
    settings |= {"daily_seasonality": False, "yearly_seasonality": False}
    model = Prophet(**settings).fit(pd.DataFrame({"ds": days, "y": _SERIES}))
    example = pd.DataFrame({"ds": pd.to_datetime(_DAYS["ds"])})
    return Logging("prophet", {"pr_model": model, "signature": _inferred(example)}, example)


CASES = (
    Case(
        "statsmodels-least-squares",
        _least_squares,
        bodies.of_columns(_ROWS),
        needs=("statsmodels",),
    ),
    Case(
        "statsmodels-arima",
        _arima,
        bodies.of_columns(_STEPS),
        needs=("statsmodels",),
    ),
    Case("pmdarima", _auto_arima, bodies.of_columns(_PERIODS), needs=("pmdarima",)),
    Case("prophet", _prophet, bodies.of_columns(_DAYS), needs=("prophet",)),
)
