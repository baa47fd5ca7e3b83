"""A loader module of its own: weighs the columns by what its data file says."""

import json
from pathlib import Path


class Weighted:
    def __init__(self, weights):
        self.weights = weights

    def predict(self, model_input):
        return (model_input * self.weights).sum(axis=1)


def _load_pyfunc(path):
    return Weighted(json.loads(Path(path).read_text()))
