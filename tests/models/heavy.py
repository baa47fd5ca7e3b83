"""Models of a size that is felt: what loading them costs is what they are for.

Each is fitted once in a process, however many versions of it are saved: building takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from tests.models.catalogue import Estimated, Payload, TorchModel, split

FOREST_COLUMNS = ("x1", "x2", "x3", "x4")
_TREE_ROWS = 100_000
TREE_BYTES = 72 * (2 * _TREE_ROWS - 1)
"""Of a tree with a leaf for every row: what each of its nodes takes in a pickle."""
_TERMS_IN_TEXT = 1000
_TERMS_ASKED = 10


class Sized(Estimated):
    """An estimator that is saved with pickle."""

    example_rows = 2

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "serialization_format": "cloudpickle"}


@dataclass(frozen=True)
class Forest(Sized):
    """A random forest of full-grown trees of 14.4 MB each: a few big arrays.

    Attributes:
        trees: How many.
        first: Up to 2, the first of the trees that it takes of those grown: tells answers apart.
    """

    trees: int = 2
    first: int = 0

    def payload(self, rows: int = 1) -> Payload:
        data = np.round(np.random.default_rng(3000 + rows).random((rows, 4)), 3)
        return split(FOREST_COLUMNS, data.tolist())

    def estimator(self) -> Any:
        from sklearn.base import clone

        grown = _forest(self.trees + 2)
        part = clone(grown).set_params(n_estimators=self.trees)
        fitted = {name: value for name, value in vars(grown).items() if name not in vars(part)}
        vars(part).update(fitted, estimators_=grown.estimators_[self.first :][: self.trees])
        return part


@lru_cache(maxsize=1)
def _forest(trees: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(0)
    columns = {name: random.random(_TREE_ROWS) for name in FOREST_COLUMNS}
    forest = RandomForestRegressor(trees, max_features=1, bootstrap=False, n_jobs=2, random_state=0)
    return forest.fit(pd.DataFrame(columns), random.random(_TREE_ROWS)).set_params(n_jobs=None)


@dataclass(frozen=True)
class TextPipeline(Sized):
    """A vectorizer that knows ``terms`` terms, and a linear model: millions of small objects.

    The interpreter's lock is held while they are unpickled, and again while they are freed.
    ``sign`` tells the answers of versions apart.
    """

    terms: int = 10_000
    sign: float = 1.0

    def payload(self, rows: int = 1) -> Payload:
        texts = [" ".join(text.split()[:_TERMS_ASKED]) for text in _texts(self.terms)[:rows]]
        return split(("text",), [[text] for text in texts])

    def _example(self) -> pd.DataFrame:
        return pd.DataFrame({"text": ["some text", "other words"]})

    def estimator(self) -> Any:
        from sklearn.pipeline import Pipeline

        (name, vectorizer), (_, linear) = _text_pipeline(self.terms).steps
        signed = type(linear)()
        vars(signed).update(vars(linear), coef_=self.sign * linear.coef_)
        return Pipeline([(name, vectorizer), ("linear", signed)])


@lru_cache(maxsize=1)
def _text_pipeline(terms: int) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline

    # With a limit on the terms, scikit-learn keeps their indices as numpy's integers.
    vectorizer = ColumnTransformer([("terms", TfidfVectorizer(max_features=terms), "text")])
    vectors = vectorizer.fit_transform(pd.DataFrame({"text": _texts(terms)}))
    known = vectors.shape[1]
    assert known == terms, known
    linear = LinearRegression()
    linear.coef_, linear.intercept_ = np.random.default_rng(1).normal(0, 1, known), 0.0
    linear.n_features_in_ = known
    return Pipeline([("vectorizer", vectorizer), ("linear", linear)])


@lru_cache(maxsize=1)
def _texts(terms: int) -> list[str]:
    """Texts that hold every term once: numbers, in an order that says nothing."""
    numbers = np.random.default_rng(2).permutation(terms) * 7919 + 16**6
    words = [f"{number:x}" for number in numbers]
    return [" ".join(words[at : at + _TERMS_IN_TEXT]) for at in range(0, terms, _TERMS_IN_TEXT)]


@dataclass(frozen=True)
class WideTorchModel(TorchModel):
    """A torch module that weighs four bytes times the square of its ``width``."""

    width: int = 8

    def _module(self) -> Any:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return torch.nn.Sequential(
                torch.nn.Linear(4, self.width),
                torch.nn.ReLU(),
                torch.nn.Linear(self.width, self.width),
                torch.nn.ReLU(),
                torch.nn.Linear(self.width, 3),
            ).eval()
