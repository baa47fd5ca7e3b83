"""Models-from-code that answer what they were given, type and value, by the kind of their hints."""

import datetime as dt
import enum
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pydantic
from mlflow.pyfunc import ChatAgent, ChatModel, PythonModel, ResponsesAgent
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow.types.responses import ResponsesAgentResponse
from mlflow.types.type_hints import TypeFromExample


class Address(pydantic.BaseModel):
    city: str
    place: dict[str, float]


class Person(pydantic.BaseModel):
    name: str
    age: int
    tags: list[str]
    home: Address
    nickname: str | None = None
    homes: list[Address] = []


class Role(str, enum.Enum):  # noqa: UP042  # that is another class: str() says its text
    user = "someone"


class Level(enum.IntEnum):
    high = 3


class Ranked(pydantic.BaseModel):
    role: Role
    level: Level


def told(value: Any) -> Any:
    """Say what a value is, by its type and what it holds."""
    if isinstance(value, pydantic.BaseModel):
        return f"{type(value).__name__} {told(dict(value))}"
    if isinstance(value, np.ndarray):
        return (
            f"ndarray {value.dtype} {value.shape} {[told(one) for one in value.ravel().tolist()]}"
        )
    if isinstance(value, list):
        return f"list {[told(one) for one in value]}"
    if isinstance(value, dict):
        return f"dict { ({key: told(one) for key, one in value.items()}) }"
    return f"{type(value).__name__} {value}"


def each(value: Any) -> Any:
    """Answer a row for each row of what a model was given."""
    if isinstance(value, pd.DataFrame):
        types = {name: str(kind) for name, kind in value.dtypes.items()}
        rows = value.to_dict(orient="records")
        return [
            f"row {i} of {types}: {told(row)}" for i, row in zip(value.index, rows, strict=True)
        ]
    if isinstance(value, list):
        return [told(one) for one in value]
    if isinstance(value, np.ndarray) and value.ndim:
        return [told(one) for one in value]
    return told(value)


class Untyped(PythonModel):
    def predict(self, context, model_input, params=None):
        return each(model_input)


ANSWERS = {
    "series": lambda: pd.Series([1.5, 2.5], index=[9, 8]),
    "named series": lambda: pd.Series(["a", "b"], name="y"),
    "table": lambda: pd.DataFrame({"a": [1], "t": [pd.Timestamp("2026-01-01")], "l": [[1]]}),
    "bytes": lambda: [b"x" * 60],
    "model": lambda: [Address(city="Bern", place={"lat": 1.5})],
    "dates": lambda: [dt.date(2026, 1, 2), pd.Timestamp("2026-01-02"), pd.NaT],
    "many digits": lambda: [2**70],
    "enumerations": lambda: [Role.user, Level.high, Ranked(role="someone", level=3)],
    "names": lambda: [
        {True: 1, False: 2, None: 3, float("nan"): 4, 0.5: 5, 7: 6, Role.user: 7, Level.high: 8}
    ],
    "one name twice": lambda: [{"1": 1, 1: 2}],
    "a pair as a name": lambda: [{(1, 2): 3}],
    "no numbers": lambda: [1.5, float("nan"), float("inf")],
    "gaps": lambda: pd.DataFrame({"a": [1.5, None], "b": ["x", None]}),
    "labels with a gap": lambda: pd.DataFrame({"label": ["spam", None], "score": [np.nan] * 2}),
    "array of dates": lambda: np.array(["2026-01-02", "NaT"], dtype="datetime64[ns]"),
    "missing": lambda: [1, pd.NA],
    "series in a dict": lambda: {"a": pd.Series([1])},
    "half a character": lambda: ["\ud800"],
}


class Answers(PythonModel):
    def predict(self, context, model_input, params=None):
        return ANSWERS[model_input["what"].iloc[0]]()


class Cells(PythonModel):
    def predict(self, context, model_input, params=None):
        rows = model_input.to_dict(orient="records")
        return [{name: told(value) for name, value in row.items()} for row in rows]


class Pydantic(PythonModel):
    def predict(self, model_input: list[Person]) -> list[Person]:
        return [one.model_copy(update={"nickname": told(one)}) for one in model_input]


class Event(pydantic.BaseModel):
    at: dt.datetime
    data: bytes


class Events(PythonModel):
    def predict(self, model_input: list[Event]) -> list[str]:
        return each(model_input)


class Dicts(PythonModel):
    def predict(self, model_input: list[dict[str, float]]) -> list[str]:
        return each(model_input)


class DictsOfAny(PythonModel):
    def predict(self, model_input: list[dict[str, Any]], params=None) -> list[str]:
        return each(model_input)


class Lists(PythonModel):
    def predict(self, model_input: list[list[str]]) -> list[str]:
        return each(model_input)


class Strings(PythonModel):
    def predict(self, model_input: list[str]) -> list[str]:
        return each(model_input)


class Numbers(PythonModel):
    def predict(self, model_input: list[float]) -> list[str]:
        return each(model_input)


class Moments(PythonModel):
    def predict(self, model_input: list[dt.datetime]) -> list[str]:
        return each(model_input)


class Bytes(PythonModel):
    def predict(self, model_input: list[bytes]) -> list[bytes]:
        return [b"got " + one for one in model_input]


class Anything(PythonModel):
    def predict(self, model_input: list[Any]) -> list[str]:
        return each(model_input)


class FromExample(PythonModel):
    def predict(self, model_input: TypeFromExample):
        return each(model_input)


class Chat(ChatModel):
    def predict(self, context, messages, params):
        said = (
            f"{[told(one.to_dict()) for one in messages]} {params.temperature} {params.max_tokens}"
        )
        message = ChatMessage(role="assistant", content=said)
        return ChatCompletionResponse(
            choices=[ChatChoice(index=0, message=message)], id="one", created=1, model="chat"
        )


class Agent(ChatAgent):
    def predict(self, messages, context=None, custom_inputs=None):
        said = f"{[told(one) for one in messages]} {custom_inputs}"
        return ChatAgentResponse(
            messages=[ChatAgentMessage(role="assistant", content=said, id="one")]
        )


class Responses(ResponsesAgent):
    def predict(self, request):
        said = f"{[one.model_dump() for one in request.input]} {request.custom_inputs}"
        return ResponsesAgentResponse(
            output=[self.create_text_output_item(text=said, id="one")], id="two"
        )


config = mlflow.models.ModelConfig(development_config={"kind": "Untyped"})
mlflow.models.set_model(globals()[config.get("kind")]())
