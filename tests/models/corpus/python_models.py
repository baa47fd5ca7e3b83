"""Python models: what they are given, what they answer, how they are logged."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Document, Logging, inferred, signature_of

SCRIPTS = Path(__file__).parents[1] / "code_paths" / "scripts" / "corpus"
_WHEN = dt.datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001  # MLflow's datetimes have no zone


def scripted(
    script: str,
    example: Any,
    *,
    config: Mapping[str, Any] | None = None,
    signature: Any = None,
    **more: Any,
) -> Logging:
    """Return a model from the code in a file of `SCRIPTS`."""
    arguments = {"python_model": str(SCRIPTS / f"{script}.py"), **more}
    if config is not None:
        arguments["model_config"] = dict(config)
    if signature is not None:
        arguments["signature"] = signature
    return Logging("pyfunc", arguments, example)


def _mirror(example: Any) -> Callable[[], Logging]:
    """A model that tells what it was given; its signature is the example's."""
    return lambda: scripted("mirror", example, signature=inferred(example))


def _mirror_of(*specs: Mapping[str, Any], example: Any = None) -> Callable[[], Logging]:
    """The same with a signature of MLflow's JSON."""
    return lambda: scripted("mirror", example, signature=signature_of(*specs)())


def _column(kind: str, name: str | None = None, *, required: bool = True) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {"type": kind, "required": required, **named}


def _mirror_without_signature(example: Any) -> Callable[[], Logging]:
    return lambda: scripted("mirror", example, signature=False)


# --- columns of every type ----------------------------------------------------------------------

_SCALARS: dict[str, tuple[Any, list[Any]]] = {
    "boolean": (np.array([True, False]), [True, False]),
    "integer": (np.array([1, -2], dtype="int32"), [1, -2]),
    "long": (np.array([1, 2**53]), [1, 2**53]),
    "float": (np.array([1.5, 0.1], dtype="float32"), [1.5, 0.1]),
    "double": (np.array([1.5, 0.1]), [1.5, 0.1]),
    "string": (["a", "ü €"], ["a", "ü €"]),
    "binary": ([b"\x00\xff", b"ab"], ["AP8=", "YWI="]),
    "datetime": (pd.to_datetime([_WHEN, _WHEN]), ["2024-05-06T07:08:09", "2024-05-06T17:08:09"]),
}
_ODD_VALUES: dict[str, list[Any]] = {
    "boolean": [1, 0, "true", None, 1.0],
    "integer": [1.0, 1.5, 2**31, "1", None, True, -0.0],
    "long": [1.0, 1.5, 2**63, 2**64, "1", None, True],
    "float": [1, 1e39, "1.5", None, True, 2**24 + 1],
    "double": [1, "1.5", "NaN", None, True, 2**53 + 1],
    "string": [1, 1.5, None, True, "", "\x00", ["a"]],
    "binary": ["AP8", "A P8=", "AP8=\n", "!", "", None, 1, "AP_-"],
    "datetime": ["2024-05-06", "2024-05-06T07:08:09Z", "2024-05-06T07:08:09+02:00", "05/06/2024",
                 "yesterday", 0, 1714979289, None, "1600-01-01", "9999-12-31"],
}  # fmt: skip


_TYPES = {kind: given for kind, (given, _) in _SCALARS.items()}
_SENT = {kind: sent for kind, (_, sent) in _SCALARS.items()}


def _odd_values() -> dict[str, Document]:
    """Return bodies with one odd value beside values that fit, and each type's own values twice."""
    record = {kind: values[0] for kind, values in _SENT.items()}
    return {
        f"{kind}, {value!r}": {"dataframe_records": [{**record, kind: value}]}
        for kind, values in _ODD_VALUES.items()
        for value in values
    }


def _of_type(kind: str) -> Case:
    given, sent = _SCALARS[kind]
    return Case(
        f"column-{kind}", _mirror(pd.DataFrame({"x": given})), bodies.of_columns({"x": sent})
    )


_WITH_GAPS = ("long", "integer", "double", "boolean", "string")


def _with_gaps(*, required: bool) -> Callable[[], Logging]:
    kinds = [_column(kind, kind, required=required) for kind in _WITH_GAPS]
    return _mirror_of(_column("long", "id"), *kinds)


def _gaps() -> dict[str, Document]:
    """Return bodies in which a value of each type is null or missing, in one row of two or both."""
    full = {"id": 1, **{kind: _SENT[kind][0] for kind in _WITH_GAPS}}
    forms: dict[str, Document] = {"none": {"dataframe_records": [full, full]}}
    for kind in _WITH_GAPS:
        null, missing = {**full, kind: None}, {k: v for k, v in full.items() if k != kind}
        forms |= {
            f"{kind}: null in one record": {"dataframe_records": [null, full]},
            f"{kind}: missing in one record": {"dataframe_records": [full, missing]},
            f"{kind}: null in all records": {"dataframe_records": [null, null]},
            f"{kind}: missing": {"dataframe_records": [missing]},
            f"{kind}: null in one row": bodies.split(
                list(full), [list(null.values()), list(full.values())]
            ),
            f"{kind}: null in a column": {
                "inputs": {name: [null[name], full[name]] for name in full}
            },
        }
    return forms


_OPTIONAL = {
    "all": {kind: values[0] for kind, (_, values) in _SCALARS.items()},
    "none": dict.fromkeys(_SCALARS),
    "some": {"long": 1, "string": "a"},
}
# --- columns that hold others -------------------------------------------------------------------

_NESTED: dict[str, tuple[list[Any], list[Any]]] = {
    "array": ([[1.5, 2.0], [3.0]], [[1], ["a"], None, "no list", [None], [[1.0]]]),
    "array-of-strings": ([["a", "b"], []], [["a", 1], "ab", None]),
    "array-of-arrays": ([[[1, 2], [3]], [[4]]], [[1, 2], [[1.5]]]),
    "object": (
        [{"name": "a", "size": 1}, {"name": "b", "size": 2}],
        [{"name": "a"}, {"name": "a", "size": "1"}, {"name": "a", "size": 1, "more": 1}, [], None],
    ),
    "object-of-arrays": ([{"tags": ["a"], "at": {"x": 1.5}}], [{"tags": "a", "at": {"x": 1}}]),
    "array-of-objects": ([[{"a": 1}, {"a": 2}], [{"a": 3}]], [[{"a": "1"}], [{}], {"a": 1}]),
}


def _nested(kind: str) -> Case:
    values, odd = _NESTED[kind]
    forms = bodies.of_columns({"x": values}) | {
        f"{value!r}": bodies.split(["x"], [[value]]) for value in odd
    }
    return Case(f"column-{kind}", _mirror(pd.DataFrame({"x": values})), forms)


_MAPS: dict[str, list[Any]] = {
    "m": [{"one": 1, "two": 2}, {"three": 3}],
    "a": ["text", {"deep": [1, None]}],
}


# --- columns with odd names ---------------------------------------------------------------------

_NAMES: dict[str, list[Any]] = {
    "two words": [1.5, 2.5],
    "ünï": [1.5, 2.5],
    "index": [1.5, 2.5],
    "a.b": [0.5, 1.0],
}


_UNNAMED: dict[str, list[Any]] = {"0": [1.5, 2.5], "1": ["a", "b"]}


# --- tensors ------------------------------------------------------------------------------------


def _tensor(name: str, array: Any, more: Mapping[str, Document] | None = None) -> Case:
    forms = bodies.of_tensor(array.tolist()) | dict(more or {})
    return Case(f"tensor-{name}", _mirror(array), forms)


_IMAGES = (np.arange(24).reshape(2, 3, 4) * 10 % 256).astype("uint8")
_TENSORS: dict[str, list[Any]] = {"x": [[1.5, 2.0], [3.0, 4.5]], "n": [1, 2]}


def _tensor_of(dtype: str, shape: list[int], **named: str) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **named}


_MATRIX = np.array([[1.5, 2.0], [3.0, 4.5]])
_VECTOR: dict[str, Document] = {
    "inputs": {"inputs": [1.5, 2.5]},
    "instances": {"instances": [1.5, 2.5]},
    "one number": {"inputs": 1.5},
    "a matrix": {"inputs": [[1.5], [2.5]]},
    "dataframe_split": bodies.split(["x"], [[1.5], [2.5]]),
    "dataframe_records": {"dataframe_records": [{"x": 1.5}, {"x": 2.5}]},
}


# --- params -------------------------------------------------------------------------------------

_PARAMS = {
    "number": 0.5, "count": 3, "name": "a", "flag": True, "numbers": [1.5, 2.5],
    "names": ["a"], "when": _WHEN,
}  # fmt: skip
_ROWS: Document = bodies.split(["x"], [[1.5], [2.5]])
_SOME_PARAMS: dict[str, Any] = {
    "null": None,
    "empty": {},
    "all": {**_PARAMS, "when": "2024-01-02T03:04:05"},
    "a whole number for a number": {"number": 2},
    "a number for a whole number": {"count": 1.5},
    "a whole number": {"count": 2},
    "a number that is whole": {"count": 2.0},
    "a string for a number": {"number": "0.5"},
    "a number for a string": {"name": 1},
    "a string for a boolean": {"flag": "true"},
    "a number for a list": {"numbers": 1.5},
    "a list for a number": {"number": [1.5]},
    "whole numbers in a list": {"numbers": [1, 2]},
    "strings in a list of numbers": {"numbers": ["a"]},
    "an empty list": {"numbers": []},
    "null for one": {"number": None},
    "unknown": {"unknown": 1},
    "no object": [1],
    "a date": {"when": "2024-01-02"},
    "no date": {"when": "soon"},
}
_WITH_PARAMS: dict[str, Document] = {
    "none at all": _ROWS,
    **{name: {**_ROWS, "params": params} for name, params in _SOME_PARAMS.items()},
}


def _with_params(example: bool) -> Callable[[], Logging]:
    frame = pd.DataFrame({"x": [1.5, 2.5]})
    given = (frame, {"number": 0.75}) if example else frame
    return lambda: scripted("mirror", given, signature=inferred(frame, params=_PARAMS))


# --- answers ------------------------------------------------------------------------------------

_X = {"x": [1.0, 2.5, 4.0]}
ANSWERS = (
    "list", "list of lists", "list of objects", "list of strings", "list of numpy numbers",
    "list of arrays", "list of datetimes", "list of dates", "list of decimals", "list of bytes",
    "list of nothing", "list of models", "list of large numbers", "tuple", "set", "generator",
    "array", "array of float32", "array of int8", "array of bool", "array of strings",
    "array of objects", "array of datetimes", "array of complex", "matrix", "cube",
    "array without dimensions", "sparse matrix", "frame", "frame of many types",
    "frame with gaps", "frame with whole names", "frame with an index", "series",
    "series with a name", "series of strings", "index", "object", "object of lists",
    "object of arrays", "object of frames", "object with whole names", "string", "number",
    "numpy number", "boolean", "nothing", "model", "forecast", "forecast as a frame",
    "forecast as an array", "fewer rows", "no rows", "top three of each", "top three of all",
    "NaN", "NaN in an array", "NaN in a frame", "infinity", "raises", "raises on one",
)  # fmt: skip


def _answering(way: str) -> Callable[[], Logging]:
    example = pd.DataFrame({"x": [1.0, 2.0], "way": way})
    return lambda: scripted("answers", example, signature=inferred(example))


def _asked_for(way: str) -> Document:
    return {"dataframe_records": [{"x": x, "way": way} for x in _X["x"]]}


def _answers(way: str) -> Case:
    """A model whose example is answered in this way."""
    forms = bodies.of_columns({**_X, "way": [way] * len(_X["x"])})
    asked = {form: forms[form] for form in ("dataframe_split", "inputs, columns")}
    asked["one row"] = {"dataframe_records": [{"x": 1.5, "way": way}]}
    return Case(f"answers-{way.replace(' ', '-').lower()}", _answering(way), asked)


# --- forms of a Python model --------------------------------------------------------------------


def _class() -> Any:
    from mlflow.pyfunc import PythonModel

    class Twice(PythonModel):  # type: ignore[misc]  # not typed
        """Pickled with its code."""

        def load_context(self, context: Any) -> None:
            """Read the factor."""
            self.factor = float(Path(context.artifacts["factor"]).read_text())

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            """Return each row's value times the factor."""
            return (model_input["x"] * self.factor).tolist()

    return Twice()


def _pickled_with_artifacts() -> Logging:
    factor = Path(mkdtemp()) / "factor.txt"
    factor.write_text("2.5")
    example = pd.DataFrame({"x": [1.0, 2.0]})
    arguments = {
        "python_model": _class(),
        "artifacts": {"factor": str(factor)},
        "signature": inferred(example, [1.0]),
    }
    return Logging("pyfunc", arguments, example)


def _function() -> Logging:
    def shout(model_input: list[str]) -> list[str]:
        return [text.upper() for text in model_input]

    return Logging("pyfunc", {"python_model": shout}, ["a", "b"])


def _function_without_hints() -> Logging:
    def twice(model_input):  # as users write it
        return model_input * 2

    return Logging("pyfunc", {"python_model": twice}, pd.DataFrame({"x": [1.0, 2.0]}))


def _loader_module() -> Logging:
    data = Path(mkdtemp()) / "weights.json"
    data.write_text("[2.0, 3.0]")
    example = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 1.0]})
    arguments = {
        "loader_module": "weighted",
        "data_path": str(data),
        "code_paths": [str(SCRIPTS / "weighted.py")],
        "signature": inferred(example, [1.0]),
    }
    return Logging("pyfunc", arguments, example)


# --- examples -----------------------------------------------------------------------------------

_EXAMPLES: dict[str, tuple[Any, dict[str, Document]]] = {
    "string": (
        "a plain string",
        {
            "inputs, string": {"inputs": "b"},
            "inputs, strings": {"inputs": ["b", "c"]},
            "instances": {"instances": ["b"]},
            "dataframe_split": bodies.split(["0"], [["b"]]),
            "dataframe_records": {"dataframe_records": [{"0": "b"}]},
            "number": {"inputs": 1},
        },
    ),
    "strings": (["a", "b"], bodies.of_values(["c", "d"])),
    "numbers": ([1.5, 2.5], bodies.of_values([3.5, 4])),
    "number": (1.5, bodies.of_values([2.5])),
    "object": ({"a": "b", "n": 1}, bodies.of_columns({"a": ["c", "d"], "n": [1, 2]})),
    "object-of-lists": (
        {"question": "why", "words": ["a", "b"]},
        bodies.of_columns({"question": ["who", "what"], "words": [["a"], ["b", "c"]]}),
    ),
    "object-of-arrays": (
        {"x": np.array([1.5, 2.5]), "n": np.array([1, 2])},
        bodies.of_tensors({"x": [1.5, 2.5], "n": [1, 2]}),
    ),
    "objects": (
        [{"a": "b", "n": 1}, {"a": "c", "n": 2}],
        bodies.of_columns({"a": ["c", "d"], "n": [1, 2]}),
    ),
    "nested-objects": (
        {"messages": [{"role": "user", "content": "hi"}], "options": {"depth": 2}},
        bodies.of_columns(
            {"messages": [[{"role": "user", "content": "ho"}]], "options": [{"depth": 3}]}
        ),
    ),
    "frame-of-dates": (
        pd.DataFrame({"when": pd.to_datetime(["2024-01-01", "2024-01-02"]), "n": [1, 2]}),
        bodies.of_columns({"when": ["2024-03-01", "2024-03-02"], "n": [1, 2]}),
    ),
}  # fmt: skip


def _example(name: str) -> Case:
    example, forms = _EXAMPLES[name]
    return Case(f"example-{name}", _mirror(example), forms)


def _example_without_signature(name: str) -> Case:
    example, forms = _EXAMPLES[name]
    return Case(f"example-{name}-no-signature", _mirror_without_signature(example), forms)


_COLUMN_X = bodies.of_columns({"x": [1.5, 2.0]})

CASES = (
    Case(
        "columns",
        _mirror(pd.DataFrame(_TYPES)),
        bodies.of_columns(_SENT) | _odd_values(),
    ),
    *map(_of_type, _SCALARS),
    *map(_nested, _NESTED),
    Case(
        "columns-optional",
        _mirror_of(
            *(_column(kind, kind, required=False) for kind in _SCALARS),
            example=pd.DataFrame({"long": [1], "string": ["a"]}),
        ),
        {name: {"dataframe_records": [record]} for name, record in _OPTIONAL.items()}
        | bodies.of_columns({kind: values for kind, (_, values) in _SCALARS.items()}),
    ),
    Case(
        "columns-with-gaps", _with_gaps(required=False), _gaps()
    ),
    Case(
        "columns-without-gaps",
        _with_gaps(required=True),
        _gaps(),
    ),
    Case(
        "columns-maps",
        _mirror_of(
            {**_column("map", "m"), "values": {"type": "long"}}, _column("any", "a", required=False)
        ),
        bodies.of_columns(_MAPS),
    ),
    Case("columns-odd-names", _mirror(pd.DataFrame(_NAMES)), bodies.of_columns(_NAMES)),
    Case(
        "columns-no-names",
        _mirror_of(_column("double"), _column("string")),
        bodies.of_columns(_UNNAMED),
    ),
    Case(
        "column-no-name",
        _mirror_of(_column("string"), example=["a"]),
        bodies.of_columns({"0": ["a", "b"]}) | bodies.of_values(["a", "b"]),
    ),
    Case("frame-no-signature", _mirror_without_signature(pd.DataFrame({"x": [1.5]})), _COLUMN_X),
    _tensor("double", _MATRIX, bodies.faults_of_tensor(_MATRIX.tolist())),
    _tensor("float32", _MATRIX.astype("float32")),
    _tensor("long", _MATRIX.astype("int64"), {"numbers": {"inputs": [[1.5, 2.0]]}}),
    _tensor("int8", _MATRIX.astype("int8"), {"large": {"inputs": [[300, 1]]}}),
    _tensor("boolean", _MATRIX > 2),
    _tensor("strings", np.array([["a", "b"], ["c", "d"]])),
    _tensor("images", _IMAGES),
    Case("tensor-vector", _mirror_of(_tensor_of("float64", [-1]), example=_MATRIX[0, :1]), _VECTOR),
    Case("tensor-one-name", _mirror_of(_tensor_of("float32", [-1, 2], name="x")),
         bodies.of_tensors({"x": [[1.5, 2.0]]}) | bodies.of_tensor([[1.5, 2.0]])),
    Case("tensors", _mirror({name: np.array(values) for name, values in _TENSORS.items()}),
         bodies.of_tensors(_TENSORS)),
    Case("params", _with_params(example=False), _WITH_PARAMS),
    Case("params-in-example", _with_params(example=True), _WITH_PARAMS),
    Case("answers", _answering("list"), {way: _asked_for(way) for way in ANSWERS}),
    *map(_answers, ANSWERS),
    Case("python-pickled", _pickled_with_artifacts, _COLUMN_X),
    Case("python-function", _function, bodies.of_values(["a", "b"])),
    Case("python-function-no-hints", _function_without_hints, _COLUMN_X),
    Case("python-loader-module", _loader_module, bodies.of_columns({"x": [1.0], "y": [2.0]})),
    *map(_example, _EXAMPLES),
    *map(_example_without_signature, _EXAMPLES),
)  # fmt: skip
