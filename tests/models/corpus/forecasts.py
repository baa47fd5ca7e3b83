"""Models that forecast: their answers are not one for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging, logged

_SERIES = np.array([3.0, 4, 6, 5, 7, 9, 8, 10, 12, 11, 13, 15, 14, 16, 18, 17, 19, 21, 20, 22])
_STEPS = {"start": [20], "end": [24]}
_PERIODS = {"n_periods": [3]}
_DAYS = {"ds": ["2024-02-01", "2024-02-02", "2024-02-03"]}
_ROWS = {"a": [1.0, 2.5, 4.0], "b": [0.5, 0.0, 1.5]}


def _least_squares() -> Logging:
    import statsmodels.api as sm

    table = pd.DataFrame({"a": np.arange(10.0), "b": np.arange(10.0) ** 2})
    model = sm.OLS(table["a"] * 2 + table["b"] + 1, table).fit()
    return logged("statsmodels", "statsmodels_model", model, pd.DataFrame(_ROWS))


def _arima() -> Logging:
    from statsmodels.tsa.arima.model import ARIMA

    model = ARIMA(_SERIES, order=(1, 1, 0)).fit()
    return logged("statsmodels", "statsmodels_model", model, pd.DataFrame(_STEPS))


def _auto_arima() -> Logging:
    import pmdarima

    model = pmdarima.ARIMA((1, 1, 0)).fit(_SERIES)
    return logged("pmdarima", "pmdarima_model", model, pd.DataFrame(_PERIODS))


def _prophet() -> Logging:
    from prophet import Prophet

    days = pd.date_range("2024-01-01", periods=len(_SERIES))
    settings: dict[str, Any] = {"uncertainty_samples": 0, "weekly_seasonality": False}
    settings |= {"daily_seasonality": False, "yearly_seasonality": False}
    model = Prophet(**settings).fit(pd.DataFrame({"ds": days, "y": _SERIES}))
    example = pd.DataFrame({"ds": pd.to_datetime(_DAYS["ds"])})
    return logged("prophet", "pr_model", model, example)


_STATSMODELS = ("statsmodels",)
CASES = (
    Case("statsmodels-least-squares", _least_squares, bodies.of_columns(_ROWS), _STATSMODELS),
    Case("statsmodels-arima", _arima, bodies.of_columns(_STEPS), _STATSMODELS),
    Case("pmdarima", _auto_arima, bodies.of_columns(_PERIODS), needs=("pmdarima",)),
    Case("prophet", _prophet, bodies.of_columns(_DAYS), needs=("prophet",)),
)
