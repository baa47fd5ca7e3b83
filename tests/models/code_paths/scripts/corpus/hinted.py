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


class Numbers(PythonModel):
    def predict(self, model_input: list[float]):
        return told(model_input)


class Booleans(PythonModel):
    def predict(self, model_input: list[bool]):
        return told(model_input)


class Moments(PythonModel):
    def predict(self, model_input: list[dt.datetime]):
        return told(model_input)


class Bytes(PythonModel):
    def predict(self, model_input: list[bytes]):
        return told(model_input)


class Lists(PythonModel):
    def predict(self, model_input: list[list[str]]) -> list[list[str]]:
        return [words[::-1] for words in model_input]


class Objects(PythonModel):
    def predict(self, model_input: list[dict[str, int]]):
        return told(model_input)


class ObjectsOfLists(PythonModel):
    def predict(self, model_input: list[dict[str, list[str]]]):
        return told(model_input)


class Messages(PythonModel):
    def predict(self, model_input: list[Message]):
        return told(model_input)


class MessagesBack(PythonModel):
    def predict(self, model_input: list[Message]) -> list[Message]:
        return model_input


class Orders(PythonModel):
    def predict(self, model_input: list[Order]):
        return told(model_input)


class Anything(PythonModel):
    def predict(self, model_input: list[Any]):
        return told(model_input)


class Either(PythonModel):
    def predict(self, model_input: list[int | str]):
        return told(model_input)


class Frame(PythonModel):
    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        return model_input * 2


class OneSeries(PythonModel):
    def predict(self, model_input: pd.Series) -> pd.Series:
        return model_input * 2


class Matrix(PythonModel):
    def predict(self, model_input: np.ndarray) -> np.ndarray:
        return model_input * 2


class AsTheExample(PythonModel):
    def predict(self, model_input: TypeFromExample):
        return told(model_input) if isinstance(model_input, list) else type(model_input).__name__


class StringsWithContext(PythonModel):
    def predict(self, context, model_input: list[str], params: dict[str, Any] | None = None):
        return [f"{text} {(params or {}).get('suffix')}" for text in model_input]


HINTED = {
    one.__name__: one
    for one in (
        Strings, Whole, Numbers, Booleans, Moments, Bytes, Lists, Objects, ObjectsOfLists,
        Messages, MessagesBack, Orders, Anything, Either, Frame, OneSeries, Matrix, AsTheExample,
        StringsWithContext,
    )
}  # fmt: skip
mlflow.models.set_model(HINTED[mlflow.models.ModelConfig().get("hinted")]())
