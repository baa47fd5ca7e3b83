"""Models of MLflow 3 and bodies for them: which MLflow's server and ours answer alike."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from tests.models.typed import TypedModel

NOT_WHOLE = "a string where a whole number is needed"
NOT_A_STRING = "a whole number where a string is needed"
NOT_A_NUMBER = "a string where a number is needed"
NOT_BASE64 = "a string that is not base64 where bytes are needed"
NOT_A_DATE = "a string that is no ISO 8601 date and time"
NOT_LABELS = "not a list of a name or number for each row"
OF_OBJECTS = "row 0 of {'a': 'object'}: dict"
"""How the answer of a model that was given a table of one column of objects begins."""
ANN = {
    "name": "Ann",
    "age": 30,
    "tags": ["a", "b"],
    "home": {"city": "Bern", "place": {"lat": 1.5}},
    "homes": [{"city": "Rom", "place": {}}],
}
BROKEN_LINES = base64.encodebytes(b"y" * 100).decode()
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
ONE_ROW = {"columns": ["a"], "data": [[1.0], [2.0]]}


NO_NULL = "null beside whole numbers: a column of type long has no null"
TYPES = ModelSignature(
    Schema(
        [
            *(ColSpec("double", "d"), ColSpec("float", "f"), ColSpec("long", "l")),
            *(ColSpec("integer", "i"), ColSpec("boolean", "b"), ColSpec("string", "s")),
            *(ColSpec("datetime", "t"), ColSpec("binary", "n")),
            *(ColSpec("long", "o", required=False), ColSpec("boolean", "p", required=False)),
        ]
    )
)
PARAMS = ModelSignature(
    Schema([ColSpec("double", "a")]),
    params=ParamSchema(
        [
            ParamSpec("n", "long", 1),
            ParamSpec("l", "long", [1], (-1,)),
            ParamSpec("d", "datetime", np.datetime64("2026-01-01")),
            ParamSpec("o", Object([Property("k", DataType.long)]), {"k": 1}),
        ]
    ),
)
AB = "row 0 of {'a': 'int64', 'b': 'str'}: dict {'a': 'int 2', 'b': 'str y'}"
ARRAY = "ndarray float32 (2,) ['float 1.0', 'float 2.0']"
CHANGED_BY_MLFLOW = [
    ("d", True, "float 1.0", "a boolean where a number is needed"),
    ("d", "1", "float 1.0", NOT_A_NUMBER),
    ("d", None, "float nan", "null in a required column"),
    ("f", 1e39, "float inf", "a number beyond float32"),
    ("l", 4.5, "int 4", "a number where a whole number is needed"),
    ("l", "4", "int 4", NOT_WHOLE),
    ("l", 2**63, "int -9223372036854775808", "a whole number beyond 64 bits"),
    ("i", 2**31, "int -2147483648", "a whole number beyond 32 bits"),
    ("b", "no", "bool True", "a string where a boolean is needed"),
    ("b", None, "bool False", "null in a required column"),
    ("s", 4, "int 4", NOT_A_STRING),
    ("s", None, "NoneType None", "null in a required column"),
    ("t", 1, "Timestamp 1970-01-01 00:00:00.000000001", NOT_A_STRING),
    ("t", "2 January 2026", "Timestamp 2026-01-02 00:00:00", NOT_A_DATE),
    (
        "t",
        "2026-01-02T03:04:05.1234567891",
        "Timestamp 2026-01-02 03:04:05.123456789",
        "a date and time finer than a nanosecond",
    ),
    ("t", "2026-01-02T03:04.5", "Timestamp 2026-01-02 03:04:30", NOT_A_DATE),
    ("n", "2026-01-01", "bytes b'\\xdbM\\xba\\xd3]5'", NOT_BASE64),
]
"""Column, value, what MLflow makes of it, and why it is refused here."""
TOLD = {
    "d": "float 1.5",
    "f": "float 0.5",
    "l": "int 1",
    "i": "int 2",
    "b": "bool True",
    "s": "str x",
    "t": "Timestamp 2026-01-02 00:00:00",
    "n": "bytes b'\\x00\\x01'",
}
"""What the model says that it was given for `GOOD`."""
LISTS = ModelSignature(
    Schema(
        [
            *(
                ColSpec(Array(kind), name, required=False)
                for name, kind in {
                    "d": DataType.double,
                    "f": DataType.float,
                    "i": DataType.integer,
                    "s": DataType.string,
                    "b": DataType.boolean,
                    "n": DataType.binary,
                    "t": DataType.datetime,
                }.items()
            ),
            ColSpec(Map(DataType.long), "m", required=False),
            ColSpec(AnyType(), "a", required=False),
        ]
    )
)
GOOD = {"d": 1.5, "f": 0.5, "l": 1, "i": 2, "b": True, "s": "x", "t": "2026-01-02", "n": "AAE="}


ROWS = {"table": 1, "bytes": 1, "model": 1, "many digits": 1, "half a character": 1}
ROWS |= {"dates": 3, "no numbers": 3, "enumerations": 3}
ROWS |= {"names": 1, "one name twice": 1, "a pair as a name": 1}
FAILS = "an error of MLflow's own"


def asks_for(what: str) -> dict[str, Any]:
    """Return a body with as many rows as the model answers to it."""
    return {"dataframe_records": [{"what": what}] * ROWS.get(what, 2)}


@dataclass(frozen=True)
class Case:
    """A model and bodies.

    Attributes:
        alike: Bodies that both answer, and answer alike; the logged example is one of them.
        refused: Bodies that both refuse, and where ours says the fault is: row and field.
        differs: Bodies that are served differently on purpose: what MLflow predicts, None if it
            refuses, `FAILS` if it breaks; and what we predict, or what is wrong by our reading.
    """

    model: TypedModel
    alike: list[Any] = field(default_factory=list)
    refused: list[tuple[Any, list[list[Any]]]] = field(default_factory=list)
    differs: list[tuple[Any, Any, Any]] = field(default_factory=list)


def tensors(*specs: tuple[str | None, str, tuple[int, ...]]) -> TypedModel:
    """Return a model of tensors: name, dtype and shape of each."""
    schema = Schema([TensorSpec(np.dtype(dtype), shape, name) for name, dtype, shape in specs])
    return TypedModel("Untyped", signature=ModelSignature(schema))


def untyped(example: Any) -> TypedModel:
    return TypedModel("Untyped", example)


CASES = {
    "list of a pydantic model": Case(
        TypedModel("Pydantic", [ANN]),
        alike=[
            {"inputs": [ANN, ANN | {"tags": [], "nickname": "A"}]},
            {"inputs": [ANN | {"of no field": 1}]},
        ],
        refused=[
            ({"inputs": [ANN, {**ANN, "age": "30"}]}, [[1, "age", NOT_WHOLE]]),
            (
                {"inputs": [ANN | {"home": {"city": 3, "place": {}}}]},
                [[0, "home.city", NOT_A_STRING]],
            ),
            ({"inputs": ["Ann"]}, [[0, None, "a string where an object is needed"]]),
            ({"inputs": ANN}, [[None, "inputs", "not a list"]]),
        ],
        differs=[({"inputs": []}, [], "the input has no rows")],
    ),
    "list of a model with dates and bytes": Case(
        TypedModel("Events"),
        refused=[
            (
                {"inputs": [{"at": "2026-01-02T03:04:05.1234567", "data": "AAE="}]},
                [[0, "at", "a date and time finer than a microsecond"]],
            )
        ],
        differs=[
            (
                {"inputs": [{"at": "2026-01-02T03:04:05", "data": "AAE="}]},
                None,
                [
                    (
                        "Event dict {'at': 'datetime 2026-01-02 03:04:05', "
                        "'data': \"bytes b'\\\\x00\\\\x01'\"}"
                    )
                ],
            )
        ],
    ),
    "list of dicts": Case(
        TypedModel("Dicts", [{"a": 1.0, "b": 2.5}]),
        alike=[{"inputs": [{"a": 1.0}, {"c": 2.5, "d": 3.5}, {}]}],
        refused=[({"inputs": [{"a": "x"}]}, [[0, "a", NOT_A_NUMBER]])],
        differs=[
            ({"inputs": [{"a": 1}]}, None, ["dict {'a': 'float 1.0'}"]),
            ({"instances": [{"a": 1.5}]}, None, ["dict {'a': 'float 1.5'}"]),
            ({"dataframe_records": [{"a": 1.5}]}, None, ["dict {'a': 'float 1.5'}"]),
            ({"features": {"a": 1.5}}, None, ["dict {'a': 'float 1.5'}"]),
        ],
    ),
    "list of dicts of anything": Case(
        TypedModel("DictsOfAny", [{"a": 1.0, "b": ["x", {"y": 1}]}]),
        alike=[{"inputs": [{"z": [1, None]}, {}]}],
        refused=[({"inputs": [3]}, [[0, None, "a whole number where an object is needed"]])],
    ),
    "list of lists": Case(
        TypedModel("Lists", [["a", "b"], ["c"]]),
        alike=[{"inputs": [["x"], []]}],
        refused=[({"inputs": [["x", 1]]}, [[0, "[1]", NOT_A_STRING]])],
    ),
    "list of strings": Case(
        TypedModel("Strings", ["a", "b"]),
        alike=[{"inputs": ["x"]}],
        refused=[
            ({"inputs": [None]}, [[0, None, "null where a string is needed"]]),
            ({"dataframe_split": {"columns": ["a"], "data": [["x"]]}}, []),
            ({"messages": ["x"]}, []),
        ],
    ),
    "list of dates": Case(
        TypedModel("Moments", [dt.datetime(2026, 1, 2, 3, 4, 5)]),  # noqa: DTZ001
        alike=[{"inputs": ["2026-01-02T03:04:05", "2026-01-02T03:04:05Z"]}],
    ),
    "list of bytes": Case(
        TypedModel("Bytes", [b"x" * 100]),
        alike=[{"inputs": ["AAE=", BROKEN_LINES]}],
        differs=[({"inputs": ["***"]}, ["Z290IA==\n"], [[0, None, NOT_BASE64]])],
    ),
    "list of anything": Case(
        TypedModel("Anything", [1, "x"]), alike=[{"inputs": [1, {"a": [2]}, None, "s"]}]
    ),
    "type from an example, list": Case(
        TypedModel("FromExample", ["a", "b"]), alike=[{"inputs": ["x", "y", "z"]}]
    ),
    "type from an example, dicts": Case(
        TypedModel("FromExample", [{"a": 1}, {"a": 2}]), alike=[{"inputs": [{"a": 5}]}]
    ),
    "a string": Case(
        untyped("hello"),
        alike=[
            {"inputs": "x"},
            {"inputs": ["x", "y"]},
            {"instances": "x"},
            {"dataframe_split": {"data": [["x"]]}},
            {"dataframe_split": {"columns": ["text"], "data": [["x"]]}},
            {"dataframe_records": [{"text": "x"}, {"text": "y"}]},
        ],
        refused=[({"inputs": None}, [[0, "0", "null in a required column"]])],
        differs=[
            ({"inputs": 3}, ["row 0 of {0: 'str'}: dict {0: 'str 3'}"], [[0, "0", NOT_A_STRING]])
        ],
    ),
    "a number": Case(
        untyped(5),
        alike=[{"inputs": [6, 7]}],
        refused=[({"inputs": "x"}, [[0, "0", NOT_WHOLE]])],
        differs=[
            (
                {"inputs": 6.5},
                ["row 0 of {0: 'int64'}: dict {0: 'int 6'}"],
                [[0, "0", "a number where a whole number is needed"]],
            )
        ],
    ),
    "a dict of values": Case(
        untyped({"a": 1, "b": "x"}),
        alike=[
            {"inputs": {"a": [2, 3], "b": ["y", "z"]}},
            {"inputs": [{"a": 2, "b": "y"}]},
            {"instances": {"a": [2, 3], "b": ["y", "z"]}},
            {"instances": {"a": 2, "b": "y"}},
            {"inputs": {"a": [2], "b": ["y"], "extra": "z"}},
        ],
        refused=[
            ({"inputs": {"a": [2, 3], "b": ["y"]}}, []),
            ({"inputs": {"extra": ["z"]}}, [[None, name, "required and missing"] for name in "ab"]),
        ],
        differs=[
            *(
                (body, [AB], refused)
                for body, refused in (
                    ({"inputs": {"a": [2], "b": "y"}}, "the columns are not lists of one length"),
                    (
                        {"dataframe_split": {"columns": ["a", "b"], "data": [{"a": 2, "b": "y"}]}},
                        [[0, None, "not a list of 2 values"]],
                    ),
                    (
                        {"dataframe_split": {"data": {"a": [2], "b": ["y"]}}},
                        [[None, "dataframe_split", "not an object with 'columns' and 'data'"]],
                    ),
                )
            ),
            ({"inputs": {"a": [2], "b": ["y"], "extra": ["z", "z"]}}, None, [AB]),
        ],
    ),
    "one column of text": Case(
        TypedModel("Untyped", signature=ModelSignature(Schema([ColSpec("string", "s")]))),
        alike=[
            {"dataframe_split": {"columns": ["s"], "data": ["x", "y"]}},
            {"inputs": {"s": ["x"], "extra": "y"}},
            {"inputs": ["x", "y"]},
        ],
        differs=[
            (
                {"inputs": [["x"]]},
                ["row 0 of {'s': 'object'}: dict {'s': \"list ['str x']\"}"],
                ["row 0 of {'s': 'str'}: dict {'s': 'str x'}"],
            ),
        ],
    ),
    "a dict with arrays": Case(
        untyped({"a": [1, 2, 3], "b": "x"}),
        alike=[
            {"inputs": {"a": [], "b": "y"}},
            {"inputs": [{"a": [4, 5], "b": "y"}, {"a": [6], "b": "z"}]},
            {"dataframe_records": [{"a": [4, 5], "b": "y"}, {"a": [6], "b": "z"}]},
            {"dataframe_split": {"columns": ["b", "a"], "data": [["y", [4, 5]]]}},
        ],
        refused=[
            ({"inputs": {"a": ["q"], "b": "y"}}, [[0, "a[0]", NOT_WHOLE]]),
            ({"inputs": {"a": 4, "b": "y"}}, [[0, "a", "a whole number where a list is needed"]]),
            (
                {"inputs": {"a": [4, None], "b": "y"}},
                [[0, "a[1]", "null where a whole number is needed"]],
            ),
        ],
        differs=[
            (
                {"instances": [{"a": [4, 5], "b": "y"}]},
                None,
                [
                    (
                        "row 0 of {'a': 'object', 'b': 'str'}: dict "
                        "{'a': \"ndarray int64 (2,) ['int 4', 'int 5']\", 'b': 'str y'}"
                    )
                ],
            )
        ],
    ),
    "a dict with arrays of numbers": Case(
        untyped({"a": [1.5, 2.5]}),
        alike=[{"inputs": {"a": [0.5, 4]}}],
        differs=[
            (
                {"inputs": {"a": [4, 5]}},
                None,
                [f"{OF_OBJECTS} {{'a': \"ndarray float64 (2,) ['float 4.0', 'float 5.0']\"}}"],
            )
        ],
    ),
    "dicts in dicts": Case(
        untyped({"q": {"k": 1, "l": ["s"]}, "m": [{"r": 1.5}, {"r": 2.5}]}),
        alike=[
            {"inputs": {"q": {"k": 2, "l": []}, "m": []}},
            {"inputs": [{"q": {"k": 2, "l": []}, "m": [{"r": 1.5}]}]},
        ],
        refused=[
            ({"inputs": {"q": {"k": "x", "l": []}, "m": []}}, [[0, "q.k", NOT_WHOLE]]),
            ({"inputs": {"q": {"k": 1}, "m": []}}, [[0, "q.l", "required and missing"]]),
            (
                {"inputs": {"q": {"k": 1, "l": [], "n": 1}, "m": []}},
                [[0, "q.n", "not in the model's signature"]],
            ),
        ],
    ),
    "a table with lists and objects": Case(
        untyped(pd.DataFrame({"a": [[1, 2], [3]], "m": [{"k": 1}, {"k": 2}]})),
        alike=[{"dataframe_split": {"columns": ["a", "m"], "data": [[[5], {"k": 6}]]}}],
    ),
    "lists of every type": Case(
        TypedModel("Cells", signature=LISTS),
        alike=[
            {"dataframe_records": [{"d": [1.5, None], "s": ["ab"], "b": [True], "m": {"k": 1}}]},
            {"inputs": {"d": [1.5, None], "s": ["ab"], "b": [True], "a": [1, "x"]}},
            {"dataframe_records": [{"d": None, "m": None, "a": None}]},
        ],
        differs=[
            ({"dataframe_records": [{name: value}]}, theirs, ours)
            for name, value, theirs, ours in (
                ("d", [1, 2], None, [{"d": "list ['float 1.0', 'float 2.0']"}]),
                ("f", [0.5], None, [{"f": "list ['float 0.5']"}]),
                ("i", [4], None, [{"i": "list ['int 4']"}]),
                (
                    "s",
                    ["a", None],
                    [{"s": "list ['str a', 'str n']"}],
                    [[0, "s[1]", "null where a string is needed"]],
                ),
                (
                    "b",
                    [None],
                    [{"b": "list ['bool False']"}],
                    [[0, "b[0]", "null where a boolean is needed"]],
                ),
                (
                    "n",
                    ["AAE="],
                    [{"n": "list [\"bytes b'AAE='\"]"}],
                    [{"n": "list [\"bytes b'\\\\x00\\\\x01'\"]"}],
                ),
                (
                    "t",
                    ["2026-01-02"],
                    None,
                    [{"t": "ndarray datetime64[ns] (1,) ['int 1767312000000000000']"}],
                ),
            )
        ],
    ),
    "a column of anything": Case(
        TypedModel("Untyped", signature=ModelSignature(Schema([ColSpec(AnyType(), "c")]))),
        alike=[
            {"inputs": {"c": ["x", "y"]}},
            {"inputs": {"c": [1, "x"]}},
            {"dataframe_records": [{"c": {"k": [1]}}, {"c": None}]},
        ],
        differs=[
            (
                {"inputs": {"c": {"k": 1}}},
                ["row k of {'c': 'int64'}: dict {'c': 'int 1'}"],
                ["row 0 of {'c': 'object'}: dict {'c': \"dict {'k': 'int 1'}\"}"],
            )
        ],
    ),
    "a binary column": Case(
        untyped(pd.DataFrame({"a": [b"z" * 100]})),
        alike=[
            {"dataframe_split": {"columns": ["a"], "data": [[BROKEN_LINES]]}},
            {"dataframe_records": [{"a": "AAE="}]},
        ],
        differs=[
            (
                {"inputs": {"a": ["AAE="]}},
                [f"{OF_OBJECTS} {{'a': \"bytes b'AAE='\"}}"],
                [f"{OF_OBJECTS} {{'a': \"bytes b'\\\\x00\\\\x01'\"}}"],
            ),
            (
                {"dataframe_records": [{"a": "*"}]},
                [f"{OF_OBJECTS} {{'a': \"bytes b''\"}}"],
                [[0, "a", NOT_BASE64]],
            ),
        ],
    ),
    "labels of rows": Case(
        untyped(pd.DataFrame({"a": [1.0]})),
        alike=[
            {"dataframe_split": ONE_ROW | {"index": index}}
            for index in (["r", "s"], [3, 3], [1.5, None], [0, 1], [1, 0], None, [True, "x"])
        ],
        refused=[
            (
                {"dataframe_split": ONE_ROW | {"index": [3]}},
                [[None, "dataframe_split.index", NOT_LABELS]],
            ),
            (
                {"dataframe_split": ONE_ROW | {"name": "x"}},
                [[None, "dataframe_split.name", "unknown"]],
            ),
        ],
        differs=[
            (
                {"dataframe_split": ONE_ROW | {"index": [[1, 2], [3, 4]]}},
                [
                    "row (1, 3) of {'a': 'float64'}: dict {'a': 'float 1.0'}",
                    "row (2, 4) of {'a': 'float64'}: dict {'a': 'float 2.0'}",
                ],
                [[None, "dataframe_split.index", NOT_LABELS]],
            ),
            (
                {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2], [2.0]]}},
                [
                    "row 0 of {'a': 'float64'}: dict {'a': 'float 1.0'}",
                    "row 1 of {'a': 'float64'}: dict {'a': 'float 2.0'}",
                ],
                [[1, None, "not a list of 2 values"]],
            ),
            ({"instances": [[1.0]]}, None, ["row 0 of {'a': 'float64'}: dict {'a': 'float 1.0'}"]),
        ],
    ),
    "columns": Case(
        TypedModel("Cells", signature=TYPES),
        alike=[
            {"dataframe_records": [GOOD | {"o": 3, "x": "left out"}]},
            {"dataframe_records": [GOOD | {"t": "2026-01-02T03:04:05.123456789"}]},
        ],
        refused=[
            ({"dataframe_records": [{**GOOD, "l": "x"}]}, [[0, "l", NOT_WHOLE]]),
            ({"dataframe_records": [{}]}, [[0, name, "required and missing"] for name in GOOD]),
            (
                {"dataframe_records": [GOOD | {"o": 1}, GOOD, GOOD | {"o": None}]},
                [[row, "o", NO_NULL] for row in (1, 2)],
            ),
        ],
        differs=[
            *(
                (
                    {"dataframe_records": [{**GOOD, name: value}]},
                    [{**TOLD, name: theirs}],
                    [[0, name, reason]],
                )
                for name, value, theirs, reason in CHANGED_BY_MLFLOW
            ),
            ({"dataframe_records": [{**GOOD, "t": "2026-01-02T00:00:00Z"}]}, None, [TOLD]),
            ({"dataframe_records": [GOOD | {"o": None}]}, None, [TOLD]),
            (
                {"dataframe_records": [GOOD | {"p": False}, GOOD]},
                [TOLD | {"p": "bool False"}, TOLD | {"p": "bool True"}],
                [TOLD | {"p": "bool False"}, TOLD | {"p": "NoneType None"}],
            ),
        ],
    ),
    "answers": Case(
        TypedModel("Answers", signature=ModelSignature(Schema([ColSpec("string", "what")]))),
        alike=[
            *map(asks_for, ("series", "named series", "table", "bytes", "model", "dates")),
            *map(asks_for, ("many digits", "enumerations", "names", "one name twice")),
        ],
        differs=[
            (asks_for("no numbers"), [1.5, "NaN", "Infinity"], [1.5, None, None]),
            (
                asks_for("gaps"),
                [{"a": 1.5, "b": "x"}, {"a": "NaN", "b": "NaN"}],
                [{"a": 1.5, "b": "x"}, {"a": None, "b": None}],
            ),
            (
                asks_for("array of dates"),
                [1767312000000000000, None],
                ["2026-01-02T00:00:00.000000000", None],
            ),
            (
                asks_for("labels with a gap"),
                [{"label": "spam", "score": "NaN"}, {"label": "NaN", "score": "NaN"}],
                [{"label": "spam", "score": None}, {"label": None, "score": None}],
            ),
            (asks_for("missing"), FAILS, [1, None]),
            (asks_for("a pair as a name"), FAILS, [{"(1, 2)": 3}]),
            (asks_for("series in a dict"), FAILS, {"a": [1]}),
            (asks_for("half a character"), ["\ud800"], "a value has no spelling in JSON"),
        ],
    ),
    "an array with gaps": Case(
        untyped(np.array([[1.5, np.nan], [2.5, 3.5]], dtype="float32")),
        alike=[
            {"inputs": [[None, 4]]},
            {"instances": [[1, 2.5]]},
            {"dataframe_split": {"columns": ["a"], "data": [[[1.5, 2.5]], [[3.5, 4.5]]]}},
        ],
        refused=[({"inputs": [[1, 2, 3]]}, [[None, None, "dimension 1 has length 3, not 2"]])],
        differs=[
            ({"inputs": [["1", 2]]}, [ARRAY], [[0, None, "a string where float32 is needed"]]),
            ({"inputs": [[True, 2]]}, [ARRAY], [[0, None, "a boolean where float32 is needed"]]),
            (
                {"inputs": [[1, 1e39]]},
                ["ndarray float32 (2,) ['float 1.0', 'float inf']"],
                [[0, None, "a number beyond float32"]],
            ),
        ],
    ),
    "an array of whole numbers": Case(
        untyped(np.array([[1, 2]])),
        alike=[{"inputs": [[3, 4], [5, 6]]}],
        differs=[
            (
                {"inputs": [[1.5, 2]]},
                ["ndarray int64 (2,) ['int 1', 'int 2']"],
                [[0, None, "a number that is no int64"]],
            )
        ],
    ),
    "arrays of several lengths": Case(
        tensors(("a", "float32", (-1, 2)), ("k", "int64", (-1,)), ("s", "float64", ())),
        alike=[
            {"inputs": {"a": [[1, 2], [3, 4]], "k": [7], "s": 0.5}},
            {"inputs": {"a": [[1, 2], [3, 4]], "k": [7, 8], "s": 0.5}},
            {"inputs": {"a": [[1, 2]], "k": [], "s": 0.5}},
        ],
        refused=[
            (
                {"inputs": {"a": [[1, 2]], "k": [7], "s": [0.5]}},
                [[None, "s", "more than 0 dimensions"]],
            )
        ],
    ),
    "one number": Case(
        tensors((None, "float32", ())),
        alike=[{"inputs": 3.5}, {"instances": 3.5}],
        refused=[({"inputs": [3.5]}, [[None, None, "more than 0 dimensions"]])],
        differs=[({"inputs": "x"}, None, [[0, None, "a string where float32 is needed"]])],
    ),
    "an array of dates": Case(
        tensors((None, "datetime64[ns]", (-1,))),
        alike=[
            {"inputs": ["2026-01-02", "2026-01-02T03:04:05.123456789", None]},
            {"inputs": ["2026-01-02T03:04:05+02:00"]},
        ],
        refused=[({"inputs": ["2 January 2026"]}, [[0, None, NOT_A_DATE]])],
        differs=[
            (
                {"inputs": [5]},
                ["datetime64 1970-01-01T00:00:00.000000005"],
                [[0, None, "a whole number where datetime64[ns] is needed"]],
            ),
        ],
    ),
    "an array of days": Case(
        tensors((None, "datetime64[D]", (-1, 1))),
        alike=[{"inputs": [["2026-01-02"], [None]]}],
        differs=[
            (
                {"inputs": [["2026-01-02"], ["2026-01-02T03:04:05"]]},
                ["ndarray datetime64[D] (1,) ['date 2026-01-02']"] * 2,
                [[1, None, "a date and time that is no datetime64[D]"]],
            )
        ],
    ),
    "an array of bytes": Case(
        tensors((None, "S", (-1,))),
        alike=[{"inputs": ["abc", ""]}],
        refused=[
            (
                {"inputs": ["ü"]},
                [[0, None, "a string with other letters than those of ASCII"]],
            )
        ],
    ),
    "an array of objects": Case(
        tensors((None, "object", (-1,))),
        alike=[
            {"inputs": ["abc", ["a", 1], {"b": None}]},
            {"inputs": [[1], [2, 3]]},
            {"inputs": [[1, "x"], [2, None]]},
        ],
    ),
    "arrays by name": Case(
        untyped({"a": np.array([[1.0, 2.0]]), "b": np.array([[3]])}),
        alike=[{"inputs": {"a": [[3.0, 4.0]], "b": [[1]]}}],
    ),
    "values with params": Case(
        untyped((["a"], {"t": 0.5})),
        alike=[{"inputs": ["x"], "params": {"t": 1.0}}, {"inputs": ["x"]}],
    ),
    "params of every type": Case(
        TypedModel("Untyped", signature=PARAMS),
        alike=[
            {
                "inputs": {"a": [1.5]},
                "params": {"n": 2, "l": [3], "d": "2026-01-02", "o": {"k": 4}},
            },
            {"inputs": {"a": [1.5]}, "params": {"n": None, "l": [], "unknown": 1}},
        ],
        refused=[
            ({"inputs": {"a": [1.5]}, "params": {name: value}}, [[None, f"params.{name}", reason]])
            for name, value, reason in (
                ("n", 1.5, "not long"),
                ("l", None, "not a list of long"),
                ("d", "2026-01-02T03:04:05.1234567", "not datetime"),
                ("o", {"k": "x"}, "k: a string where a whole number is needed"),
            )
        ],
        differs=[
            (
                {"inputs": {"a": [1.5]}, "params": {name: value}},
                None,
                ["row 0 of {'a': 'float64'}: dict {'a': 'float 1.5'}"],
            )
            for name, value in (("n", 1.0), ("l", [1.0, 2]), ("o", {"k": 1.0}))
        ]
        + [
            (
                {"inputs": {"a": [1.5]}, "params": {"l": [1, None]}},
                ["row 0 of {'a': 'float64'}: dict {'a': 'float 1.5'}"],
                [[None, "params.l", "not a list of long"]],
            )
        ],
    ),
    "without a signature": Case(
        untyped(None),
        alike=[
            {"inputs": "x"},
            {"inputs": 5},
            {"inputs": [1, 2]},
            {"inputs": {"a": [1, 2]}},
            {"inputs": {"a": 1, "b": "x"}},
            {"inputs": {"a": [[1, 2]], "b": {"c": 1}}},
            {"inputs": [{"a": 1}]},
            {"instances": [{"a": 1}, {"a": 2}]},
            {"instances": [[1, 2], [3, 4]]},
            {"dataframe_split": {"index": [5], "columns": ["a"], "data": [[1]]}},
            {"dataframe_records": [{"a": 1}, {"b": 2}, {"c": "x"}, {"d": True}]},
            {"inputs": [[2**64 - 1]]},
            {"inputs": [2**63, -1]},
            {"dataframe_records": [{"a": 2**63, "b": 2**63}, {"a": 1, "b": -1}]},
            {"inputs": [[]]},
            {"inputs": {"a": []}},
            {"inputs": [True, 1]},
            {"inputs": [True, 1.5]},
            {"instances": 5},
            {"instances": "x"},
            {"instances": {"a": [1, 2]}},
            {"dataframe_split": {"data": [1, 2]}},
            {"dataframe_split": {"columns": ["a"], "data": ["x", None]}},
            {"dataframe_records": [{"a": True}, {"a": 1}]},
            {**HELLO, "t": 1},
        ],
        differs=[
            ({"inputs": ["x"]}, ["str_ x"], ["str x"]),
            (
                {"inputs": [2**63 + 1, 1]},
                ["float64 9.223372036854776e+18", "float64 1.0"],
                ["uint64 9223372036854775809", "uint64 1"],
            ),
            ({"inputs": [["x"], []]}, None, ["list ['str x']", "list []"]),
            ({"inputs": {}}, "dict {}", "the input has no columns"),
            ({"inputs": None}, "ndarray object () ['NoneType None']", [[None, "inputs", "null"]]),
            ({"dataframe_records": [{}]}, ["row 0 of {}: dict {}"], "the input has no columns"),
            (
                {"dataframe_records": [[1]]},
                ["row 0 of {0: 'int64'}: dict {0: 'int 1'}"],
                [[0, None, "not an object of columns"]],
            ),
            *(
                (
                    {"dataframe_split": {"columns": [label], "data": [[1]]}},
                    [f"row 0 of {{{label}: 'int64'}}: dict {{{label}: 'int 1'}}"],
                    [[None, "dataframe_split.columns", "not a list of names"]],
                )
                for label in (1.5, None)
            ),
            (
                {"instances": [{"a": 1}, {"b": 2}]},
                (
                    "dict {'a': \"ndarray int64 (1,) ['int 1']\", "
                    "'b': \"ndarray int64 (1,) ['int 2']\"}"
                ),
                (
                    "dict {'a': \"ndarray object (2,) ['int 1', 'NoneType None']\", "
                    "'b': \"ndarray object (2,) ['NoneType None', 'int 2']\"}"
                ),
            ),
        ],
    ),
    "a chat model": Case(
        TypedModel("Chat", HELLO),
        alike=[
            HELLO | {"temperature": 0.5, "max_tokens": 7},
            {"inputs": HELLO},
            {"inputs": [HELLO]},
            {"dataframe_split": {"columns": ["messages"], "data": [[HELLO["messages"]]]}},
        ],
        refused=[
            ({"messages": [{"role": "user"}]}, []),
            (HELLO | {"temperature": "hot"}, [[0, "temperature", NOT_A_NUMBER]]),
            ({"temperature": 1.0}, []),
        ],
    ),
    "a chat agent": Case(TypedModel("Agent", HELLO), alike=[HELLO | {"custom_inputs": {"a": 1}}]),
    "a responses agent": Case(
        TypedModel("Responses", {"input": HELLO["messages"]}),
        alike=[
            {"input": HELLO["messages"], "custom_inputs": {"a": [1]}, "temperature": 1},
            {"inputs": {"input": HELLO["messages"]}},
        ],
        refused=[({"input": "x"}, [[0, "input", "a string where a list is needed"]])],
    ),
    "a prompt with params": Case(
        untyped(({"prompt": "hi"}, {"t": 0.5})),
        alike=[{"prompt": "x", "t": 1.5}],
        refused=[({"prompt": "x", "t": "q"}, [[None, "params.t", "not double"]])],
        differs=[
            (
                {"prompt": ["x", "y"]},
                ["row 0 of {'prompt': 'object'}: dict {'prompt': \"list ['str x', 'str y']\"}"],
                [[0, "prompt", "a list where a string is needed"]],
            ),
        ],
    ),
}
