"""scikit-learn estimators of which a worker must find out what they do, saved as MLflow saves them.

Their functions and classes are here, in a module, since a saved estimator names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

from tests.models.catalogue import Logged, Payload, inferred, split

INFERRED = "inferred"


@dataclass(frozen=True)
class SavedEstimator(Logged):
    """A fitted estimator with its input example.

    Attributes:
        signature: Of MLflow; `INFERRED`: by the example and what the estimator predicts; None:
            without one.
    """

    flavor = "sklearn"
    estimator: Any
    example: Any
    signature: Any = INFERRED

    def payload(self, rows: int = 1) -> Payload:
        """Return a body with so many rows of the example."""
        if isinstance(self.example, pd.DataFrame):
            table = self.example.iloc[:rows].to_dict(orient="split")
            return split(table["columns"], table["data"])
        return {"instances": self.example[:rows].tolist()}

    def expected(self, payload: Payload) -> list[Any]:
        """Return what the estimator predicts."""
        return list(self.estimator.predict(self.given(payload)).tolist())

    def given(self, payload: Payload) -> Any:
        """Return what the estimator is given for ``payload``."""
        if "instances" in payload:
            return np.array(payload["instances"])
        return pd.DataFrame(**payload["dataframe_split"])

    def _arguments(self) -> dict[str, Any]:
        signature = self.signature
        if isinstance(signature, str):
            answers = self.estimator.predict(self.example.copy())
            signature = inferred(self.example.copy(), answers)
        return {
            "sk_model": self.estimator,
            "input_example": self.example.copy(),
            "signature": signature,
            "pip_requirements": ["scikit-learn"],
            "serialization_format": "cloudpickle",
        }


def centred(values: Any) -> Any:
    """Take the mean of the batch off: rows influence each other."""
    numbers = np.asarray(values, dtype=float)
    return numbers - numbers.mean(axis=0)


def labelled(values: Any) -> Any:
    """Add the rows' labels to the first column; of an array there are none."""
    if not isinstance(values, pd.DataFrame):
        return values
    return values.assign(a=values["a"] + values.index)


class Threshold(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # not typed
    """Predicts whether the first column is above 1.5."""

    def fit(self, _x: Any, y: Any) -> Threshold:
        """Learn the names of the classes only."""
        self.classes_ = np.unique(y)
        return self

    def predict(self, x: Any) -> Any:
        """Return 0 or 1 for each row."""
        return (np.asarray(x, dtype=float)[:, 0] > 1.5).astype("int64")


class ThresholdInShares(Threshold):
    """Its probabilities alone depend on the whole batch."""

    def predict_proba(self, x: Any) -> Any:
        """Return the first column as a share of the largest one of the batch."""
        numbers = np.asarray(x, dtype=float)
        shares = numbers[:, :1] / numbers[:, :1].max()
        return np.hstack([1 - shares, shares])


class ThresholdByType(Threshold):
    """Its probabilities alone depend on what kind of table it is given."""

    def predict_proba(self, x: Any) -> Any:
        """Be sure on a DataFrame, and unsure on an array."""
        sure = 1.0 if hasattr(x, "columns") else 0.5
        return np.tile([1 - sure, sure], (len(x), 1))


class Unready(Threshold):
    """An attribute of it raises what nobody foresees."""

    def fit(self, _x: Any, _y: Any) -> Unready:
        """Learn nothing."""
        return self

    def __getattribute__(self, name: str) -> Any:
        """Raise for the one attribute."""
        if name == "classes_":
            raise ZeroDivisionError
        return super().__getattribute__(name)

    def predict_proba(self, x: Any) -> Any:
        """Return the same for every row."""
        return np.full((len(x), 2), 0.5)
