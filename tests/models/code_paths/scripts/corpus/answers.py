"""Models-from-code: answers in the way that the first row names."""

import datetime as dt
from decimal import Decimal

import mlflow
import numpy as np
import pandas as pd
import pydantic
from mlflow.pyfunc import PythonModel
from scipy.sparse import csr_matrix


class Score(pydantic.BaseModel):
    value: float
    note: str | None = None


def dates(x):
    return pd.to_datetime(["2024-01-01"] * len(x)) + pd.to_timedelta(x, unit="D")


WAYS = {
    "list": lambda x: [2 * value for value in x],
    "list of lists": lambda x: [[value, "a", None, True] for value in x],
    "list of objects": lambda x: [{"twice": 2 * value, "tags": ["a"]} for value in x],
    "list of strings": lambda x: [f"{value} €\u2028" for value in x],
    "list of numpy numbers": lambda x: [np.float32(value) for value in x],
    "list of arrays": lambda x: [np.array([value, 1.0]) for value in x],
    "list of datetimes": lambda x: [dt.datetime(2024, 1, 1, 12) for _ in x],  # noqa: DTZ001  # naive
    "list of dates": lambda x: [dt.date(2024, 1, 1) for _ in x],
    "list of decimals": lambda x: [Decimal("1.5") for _ in x],
    "list of bytes": lambda x: [b"\x00\xff" for _ in x],
    "list of nothing": lambda x: [None for _ in x],
    "list of models": lambda x: [Score(value=value) for value in x],
    "list of large numbers": lambda x: [2**70 for _ in x],
    "tuple": tuple,
    "set": set,
    "generator": lambda x: (value for value in x),
    "array": lambda x: np.array(x) * 2,
    "array of float32": lambda x: np.array(x, dtype="float32") / 3,
    "array of int8": lambda x: np.array(x, dtype="int8"),
    "array of bool": lambda x: np.array(x) > 1,
    "array of strings": lambda x: np.array([f"{value}" for value in x]),
    "array of objects": lambda x: np.array([{"a": value} for value in x], dtype=object),
    "array of datetimes": lambda x: np.array(["2024-01-01"] * len(x), dtype="datetime64[ns]"),
    "array of complex": lambda x: np.array(x) * 1j,
    "matrix": lambda x: np.outer(x, [1.0, 2.0]),
    "cube": lambda x: np.ones((len(x), 2, 2)),
    "array without dimensions": lambda x: np.array(7.0),
    "sparse matrix": lambda x: csr_matrix(np.outer(x, [1.0, 2.0])),
    "frame": lambda x: pd.DataFrame({"twice": np.array(x) * 2, "word": "a"}),
    "frame of many types": lambda x: pd.DataFrame(
        {"when": dates(x), "flag": True, "kind": pd.Categorical(["a"] * len(x)), "n": 1}
    ),
    "frame with gaps": lambda x: pd.DataFrame({"n": pd.array([None] * len(x), dtype="Int64")}),
    "frame with whole names": lambda x: pd.DataFrame(np.outer(x, [1.0, 2.0])),
    "frame with an index": lambda x: pd.DataFrame(
        {"a": x}, index=[f"r{row}" for row in range(len(x))]
    ),
    "series": lambda x: pd.Series(x) * 2,
    "series with a name": lambda x: pd.Series(x, name="twice") * 2,
    "series of strings": lambda x: pd.Series([f"{value}" for value in x]),
    "index": pd.Index,
    "object": lambda x: {"sum": sum(x)},
    "object of lists": lambda x: {"twice": [2 * value for value in x], "names": ["a"] * len(x)},
    "object of arrays": lambda x: {"twice": np.array(x) * 2},
    "object of frames": lambda x: {"frame": pd.DataFrame({"a": x})},
    "object with whole names": lambda x: {1: "a", 2: "b"},
    "string": lambda x: "as one",
    "number": lambda x: float(sum(x)),
    "numpy number": lambda x: np.float64(sum(x)),
    "boolean": lambda x: True,
    "nothing": lambda x: None,
    "model": lambda x: Score(value=sum(x)),
    "forecast": lambda x: [float(step) for step in range(12)],
    "forecast as a frame": lambda x: pd.DataFrame({"yhat": [float(step) for step in range(12)]}),
    "forecast as an array": lambda x: np.arange(12.0),
    "fewer rows": lambda x: x[:1],
    "no rows": lambda x: [],
    "top three of each": lambda x: [[value, value - 1, value - 2] for value in x],
    "top three of all": lambda x: sorted([*x, 0.0, -1.0, -2.0], reverse=True)[:3],
    "NaN": lambda x: [float("nan") for _ in x],
    "NaN in an array": lambda x: np.array([[value, np.nan] for value in x]),
    "NaN in a frame": lambda x: pd.DataFrame({"a": x, "b": np.nan}),
    "infinity": lambda x: [float("inf") for _ in x],
    "raises": lambda x: 1 / 0,
    "raises on one": lambda x: [1 / (value - 2.5) for value in x],
}


class Answers(PythonModel):
    def predict(self, context, model_input, params=None):
        return WAYS[model_input["way"].iloc[0]](model_input["x"].tolist())


mlflow.models.set_model(Answers())
