"""Models-from-code with a type hint, the one that its ``model_config`` names."""

import datetime as dt
from typing import Any, Optional

import mlflow
import numpy as np
import pandas as pd
import pydantic
from mlflow.pyfunc import PythonModel
from mlflow.types.type_hints import TypeFromExample


class Message(pydantic.BaseModel):
    role: str
    content: str
    weight: float = 1.0
    note: Optional[str] = None  # noqa: UP045  # both spellings are in use


class Part(pydantic.BaseModel):
    name: str
    amount: int


class Order(pydantic.BaseModel):
    customer: Message
    parts: list[Part]
    labels: dict[str, str] = {}
    limit: int | None = None


def told(value):
    """Return a value with the names of its types, models' fields included."""
    if isinstance(value, pydantic.BaseModel):
        return {type(value).__name__: {name: told(item) for name, item in value}}
    if isinstance(value, dict):
        return {"dict": {key: told(item) for key, item in value.items()}}
    if isinstance(value, list):
        return [told(item) for item in value]
    return {type(value).__name__: str(value)}


class Strings(PythonModel):
    def predict(self, model_input: list[str], params=None) -> list[str]:
        return [text.upper() for text in model_input]


class Whole(PythonModel):
    def predict(self, model_input: list[int]) -> list[int]:
        return [number + 1 for number in model_input]


class Lists(PythonModel):
    def predict(self, model_input: list[list[str]]) -> list[list[str]]:
        return [words[::-1] for words in model_input]


class MessagesBack(PythonModel):
    def predict(self, model_input: list[Message]) -> list[Message]:
        return model_input


class AsTheExample(PythonModel):
    def predict(self, model_input: TypeFromExample):
        return told(model_input) if isinstance(model_input, list) else type(model_input).__name__


class StringsWithContext(PythonModel):
    def predict(self, context, model_input: list[str], params: dict[str, Any] | None = None):
        return [f"{text} {(params or {}).get('suffix')}" for text in model_input]


def telling(hint):
    """Return a model that tells what it is given, with this type hint."""

    class Telling(PythonModel):
        def predict(self, model_input: hint):
            return told(model_input)

    return Telling


def twice(hint):
    """Return a model that doubles what it is given, with this type hint."""

    class Twice(PythonModel):
        def predict(self, model_input: hint) -> hint:
            return model_input * 2

    return Twice


HINTED = {
    "Strings": Strings,
    "Whole": Whole,
    "Numbers": telling(list[float]),
    "Booleans": telling(list[bool]),
    "Moments": telling(list[dt.datetime]),
    "Bytes": telling(list[bytes]),
    "Lists": Lists,
    "Objects": telling(list[dict[str, int]]),
    "ObjectsOfLists": telling(list[dict[str, list[str]]]),
    "Messages": telling(list[Message]),
    "MessagesBack": MessagesBack,
    "Orders": telling(list[Order]),
    "Anything": telling(list[Any]),
    "Either": telling(list[int | str]),
    "Frame": twice(pd.DataFrame),
    "Matrix": twice(np.ndarray),
    "AsTheExample": AsTheExample,
    "StringsWithContext": StringsWithContext,
}
mlflow.models.set_model(HINTED[mlflow.models.ModelConfig().get("hinted")]())
