"""Models-from-code: answers each row with what the model was given for it, types included."""

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


def told(value):
    """Return a value of any type as text and its type's name, or as what it holds."""
    if isinstance(value, dict):
        return {"dict": {str(key): told(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [told(item) for item in value]}
    if isinstance(value, np.ndarray):
        items = value.tolist()
        held = [told(item) for item in items] if value.ndim else told(items)
        return {f"array of {value.dtype}": held}
    return {type(value).__name__: str(value)}


def is_array(value):
    return isinstance(value, np.ndarray) and value.ndim > 0


def rows(given):
    """Return one description for each row of whatever the model was given."""
    if isinstance(given, pd.DataFrame):
        kinds = {str(name): str(kind) for name, kind in given.dtypes.items()}
        return [
            {"row": told(label), "kinds": kinds, "cells": [told(cell) for cell in row]}
            for label, row in zip(given.index, given.itertuples(index=False), strict=True)
        ]
    if isinstance(given, pd.Series):
        return [{"kind": str(given.dtype), "cell": told(cell)} for cell in given]
    if is_array(given):
        return [{"kind": str(given.dtype), "cell": told(cell)} for cell in given.tolist()]
    if isinstance(given, dict) and all(map(is_array, given.values())):
        kinds = {name: str(one.dtype) for name, one in given.items()}
        parts = zip(*(one.tolist() for one in given.values()), strict=True)
        return [{"kinds": kinds, "cells": [told(cell) for cell in row]} for row in parts]
    return told(given)


class Mirror(PythonModel):
    def predict(self, context, model_input, params=None):
        described = rows(model_input)
        return {"params": told(params), "given": described} if params else described


mlflow.models.set_model(Mirror())
