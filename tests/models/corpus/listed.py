"""Which cases differ from MLflow's scoring server on purpose, in which forms, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.models.corpus import differences as because
from tests.models.corpus.cases import (
    WITH_EXAMPLE,
    WITHOUT_EXAMPLE,
    Difference,
    Differences,
)

_WITH, _WITHOUT = (WITH_EXAMPLE,), (WITHOUT_EXAMPLE,)
_BOTH = (WITH_EXAMPLE, WITHOUT_EXAMPLE)


def _with_example(difference: Difference) -> Difference:
    """Return a difference of the version that has an example."""
    return replace(difference, versions=_WITH)


def _without_example(difference: Difference) -> Difference:
    """Return a difference of the version that has none."""
    return replace(difference, versions=_WITHOUT)


def _like(difference: Difference, body: str) -> Difference:
    """Return a difference of a body that ours answers as this other one."""
    return replace(difference, like=body)


# --- what all tables, or all models with a type hint, have in common ----------------------------

_POSITIONS = ("dataframe_split, no columns", "inputs, rows", "instances, rows")
TABLE: Differences = dict.fromkeys(_POSITIONS, because.POSITIONS)
"""What `bodies.of_columns` shows for a model of named columns."""
_ONLY_PANDAS: Differences = dict.fromkeys(
    ("one value for a column", "data of records", "data of columns", "columns of null"),
    because.ONLY_PANDAS,
)
_STRICT: Differences = {
    **TABLE, **_ONLY_PANDAS,
    "a number as a string": because.CONVERTS, "a boolean": because.CONVERTS,
}  # fmt: skip
"""What `bodies.faults_of_columns` shows besides, where all columns are numbers."""
_PATIENT: Differences = {
    **_STRICT, "null": because.NULLS, "rows of other lengths": because.RAGGED,
}  # fmt: skip
"""The same for a model that bears missing numbers."""
_FIRST_BY_EXAMPLE: Differences = {form: _with_example(because.POSITIONS) for form in _POSITIONS}
"""A model whose signature comes from its example: without one it has none, and takes all."""
_FORMS = (
    "dataframe_split", "dataframe_split, other order", "dataframe_split, index",
    "dataframe_records", "inputs, columns", "inputs, records", "instances, records",
    "instances, columns",
)  # fmt: skip
_HINTED: Differences = {"inputs, none": because.EMPTY, "instances": because.HINTS}
_HINTED_OBJECTS: Differences = {**_HINTED, "dataframe_records": because.HINTS}
_TEXTS: Differences = {
    **dict.fromkeys(
        ("inputs, columns", "inputs, rows", "instances, records", "instances, rows"), because.TEXTS
    ),
    "instances, columns": _like(because.TEXTS, "inputs, columns"),
}
_TEXTS_IN_LISTS: Differences = dict.fromkeys(("inputs", "inputs, one", "instances"), because.TEXTS)
_NONE: Differences = {"inputs, none": because.EMPTY}
_FRAMES = ("dataframe_split", "dataframe_records")
_VALUES = (*_FRAMES, "inputs", "inputs, one", "inputs, no list", "instances")
_ASKS_A_SERVER = (
    *_FRAMES, *_POSITIONS, "dataframe_split, other order", "dataframe_split, index",
    "inputs, records", "inputs, one record", "instances, records",
)  # fmt: skip
"""The body forms on which a model that asks a server raises, where no server is."""

# --- columns of every type ----------------------------------------------------------------------

_CONVERTED: dict[str, list[Any]] = {
    "boolean": [1, 0, "true", 1.0],
    "integer": ["1", True],
    "long": ["1", True],
    "float": ["1.5", True],
    "double": ["1.5", "NaN", True],
    "string": [1, 1.5, True, ["a"]],
}
_CUT: dict[str, list[Any]] = {"integer": [1.5, 2**31], "long": [1.5, 2**63], "float": [1e39]}
_DATED: dict[str, list[Any]] = {"datetime": ["05/06/2024", 0, 1714979289]}
_ZONED: dict[str, list[Any]] = {"datetime": ["2024-05-06T07:08:09Z", "2024-05-06T07:08:09+02:00"]}
_GARBAGE: dict[str, list[Any]] = {"binary": ["!", "A P8="]}
_NULL: dict[str, list[Any]] = {
    kind: [None] for kind in ("boolean", "float", "double", "string", "datetime")
}
_ODD: Differences = {
    f"{kind}, {value!r}": difference
    for difference, of in (
        (because.CONVERTS, _CONVERTED),
        (because.CUTS, _CUT),
        (because.DATES, _DATED),
        (because.ZONES, _ZONED),
        (because.GARBAGE, _GARBAGE),
        (because.NULLS, _NULL),
    )
    for kind, values in of.items()
    for value in values
}
_BINARY: Differences = {
    **TABLE,
    **dict.fromkeys(
        (
            "inputs, columns",
            "inputs, records",
            "inputs, one record",
            "instances, records",
            "instances, columns",
        ),
        because.BASE64,
    ),
}
_PLACES = (
    "null in one record", "missing in one record", "null in all records", "null in one row",
    "null in a column",
)  # fmt: skip
_GAPS: Differences = {
    **{f"{kind}: null in all records": because.COUNTS_AS_MISSING for kind in ("long", "integer")},
    **{f"boolean: {place}": because.STILL_NULL for place in _PLACES},
    "string: null in a column": because.STILL_NULL,
}
_NO_GAPS: Differences = {
    f"{kind}: {place}": because.NULLS
    for kind in ("double", "boolean", "string")
    for place in _PLACES
}
_NESTED: Differences = {
    "dataframe_split, no columns": because.POSITIONS,
    **dict.fromkeys(
        ("inputs, rows", "instances, rows"), _like(because.POSITIONS, "inputs, records")
    ),
    "instances, records": because.READS,
}

# --- answers ------------------------------------------------------------------------------------

_NO_SPELLING = ("list of decimals", "set", "generator", "array of complex", "sparse matrix")
_ANSWERS: dict[str, tuple[Difference, ...]] = {
    "array of datetimes": (because.DATES_OUT,),
    "index": (because.SPELLS,),
    "object of frames": (because.SPELLS,),
    "NaN": (because.ONLY_NOT_FINITE, _without_example(because.NOT_FINITE)),
    "infinity": (because.ONLY_NOT_FINITE, _without_example(because.NOT_FINITE)),
    "NaN in an array": (because.NOT_FINITE,),
    "NaN in a frame": (because.NOT_FINITE,),
    "raises": (because.FAILS_ITS_EXAMPLE, _without_example(because.RAISES)),
    **dict.fromkeys(_NO_SPELLING, (because.FAILS_ITS_EXAMPLE, _without_example(because.RAISES))),
}
_RAISES_WITHOUT_NAMES = (
    "dataframe_split, other order", "inputs, columns", "inputs, records", "inputs, one record",
    "instances, records", "a column too many", "a column too few", "a string", "null", "a list",
    "columns of other lengths", "instances, columns", "one value for a column",
    "a column too many, of one value",
)  # fmt: skip
"""What an estimator of a matrix raises on, where no signature has the columns in its order."""
_ASKED = ("dataframe_split", "inputs, columns", "one row")

_TABLES = (
    "sklearn-skops", "sklearn-numbers", "sklearn-booleans", "sklearn-regressors",
    "sklearn-classifiers", "sklearn-clusters", "sklearn-outliers", "sklearn-mixture",
    "sklearn-probabilities", "sklearn-mixed-columns", "sklearn-texts", "sklearn-gaps",
    "columns-odd-names", "python-pickled", "python-loader-module", "example-object",
    "example-objects", "example-frame-of-dates", "xgboost-regressor", "xgboost-itself",
    "lightgbm-regressor", "lightgbm-itself", "catboost-classifier", "catboost-regressor",
    "catboost-words", "statsmodels-least-squares", "prophet", "spacy", "dspy", "h2o", "spark",
    "shap",
)  # fmt: skip
_NESTED_IN_COLUMNS = (
    "column-array", "column-object", "column-object-of-arrays", "column-array-of-objects",
    "example-object-of-lists", "example-nested-objects",
)  # fmt: skip
_HINTED_VALUES = (
    "python-function", "hint-strings", "hint-booleans", "hint-moments", "hint-lists",
    "hint-stringswithcontext",
)  # fmt: skip
_OF_OBJECTS = (
    "hint-objects", "hint-objectsoflists", "hint-messages", "hint-messagesback", "hint-orders",
    "hint-anything", "hint-either",
)  # fmt: skip

LISTED: Mapping[str, Differences] = {
    **dict.fromkeys(_TABLES, TABLE),
    **dict.fromkeys(_NESTED_IN_COLUMNS, _NESTED),
    **dict.fromkeys(_HINTED_VALUES, _HINTED),
    **dict.fromkeys(_OF_OBJECTS, _HINTED_OBJECTS),
    "example-object-no-signature": _TEXTS,
    "example-objects-no-signature": _TEXTS,
    "example-frame-of-dates-no-signature": _TEXTS,
    "sklearn-regressor": _STRICT,
    "sklearn-float32-columns": _STRICT,
    "sklearn-names": _PATIENT,
    "sklearn-boosting": _PATIENT,
    "lightgbm-classifier": _PATIENT,
    "sklearn-log-probabilities": {**TABLE, **dict.fromkeys(_FORMS, because.NOT_FINITE)},
    "sklearn-matrix": {"null": because.RAISES},
    "sklearn-float32-matrix": {"null": because.RAISES},
    "sklearn-no-signature": {
        **dict.fromkeys(_RAISES_WITHOUT_NAMES, because.RAISES),
        **dict.fromkeys(
            ("records of lists", "data of records", "data of columns"), because.ONLY_PANDAS
        ),
    },
    "sklearn-no-names": {"too wide": because.RAGGED},
    "sklearn-whole-columns": {
        **TABLE,
        **_ONLY_PANDAS,
        "a column too many": because.CUTS,
        "a column too many, of one value": because.CUTS,
        "a boolean": because.CONVERTS,
    },
    "columns": {**_BINARY, **_ODD},
    **{
        f"column-{kind}": TABLE
        for kind in ("boolean", "integer", "long", "float", "double", "string", "datetime")
    },
    "column-binary": _BINARY,
    "column-array-of-strings": {**_NESTED, "['a', 1]": because.CONVERTS},
    "column-array-of-arrays": {
        **_NESTED,
        "inputs, records": because.READS,
        "inputs, one record": because.READS,
    },
    "columns-optional": {**_BINARY, "none": because.COUNTS_AS_MISSING},
    "columns-with-gaps": _GAPS,
    "columns-without-gaps": _NO_GAPS,
    "columns-maps": {
        **TABLE,
        "inputs, columns": because.READS,
        "instances, columns": because.READS,
        "inputs, one record": because.READS,
    },
    "columns-no-names": dict.fromkeys(
        ("inputs, records", "inputs, one record", "inputs, rows", "instances, rows"),
        _like(because.READS, "dataframe_split"),
    ),
    "column-no-name": {
        "inputs, records": _like(because.CELLS, "dataframe_split"),
        "inputs, one record": _like(because.READS, "inputs, one"),
    },
    "tensor-long": {"numbers": because.CUTS},
    "tensor-dates": {"a count": because.DATES},
    "tensor-days": {"a time": because.CUTS},
    "columns-of-lists": {
        **dict.fromkeys(
            ("double, [1, 2]", "float, [0.5]", "integer, [4]", "datetime, ['2026-01-02']"),
            because.READS,
        ),
        **dict.fromkeys(("string, ['a', None]", "boolean, [None]"), because.NULLS),
        "binary, ['AAE=']": because.BASE64,
        "binary, ['*']": because.GARBAGE,
    },
    "frame-with-labels": {"[[1, 2], [3, 4]]": because.ONLY_PANDAS},
    "numbers-no-signature": {"64 bits, two": because.WHOLE},
    **dict.fromkeys(
        ("tensor-strings", "tensor-images"),
        dict.fromkeys((*_FRAMES, "dataframe_split, no columns"), because.TENSOR_ROWS),
    ),
    "tensor-one-name": {"inputs, records": because.TENSOR_ROWS},
    "tensors": {"inputs, records": _like(because.TENSOR_ROWS, "inputs, by name")},
    **{
        case: {"a number that is whole": _like(because.EXACT, "a whole number")}
        for case in ("params", "params-in-example")
    },
    "answers": {
        **{
            way: replace(found[-1], versions=(*_WITH, *_WITHOUT)) for way, found in _ANSWERS.items()
        },
        "raises on one": because.RAISES,
    },
    "answers-raises-on-one": dict.fromkeys(_ASKED[:2], because.RAISES),
    **{
        f"answers-{way.replace(' ', '-').lower()}": dict.fromkeys(_ASKED, difference)
        for way, difference in _ANSWERS.items()
    },
    "python-function-no-hints": {
        **_FIRST_BY_EXAMPLE,
        **dict.fromkeys(
            ("inputs, columns", "inputs, one record", "instances, records", "instances, columns"),
            _without_example(because.RAISES),
        ),
    },
    "example-string": {"number": because.CONVERTS},
    "example-object-of-arrays": {"inputs, records": _like(because.TENSOR_ROWS, "inputs, by name")},
    "example-string-no-signature": dict.fromkeys(("inputs, strings", "instances"), because.TEXTS),
    "example-strings-no-signature": {**_TEXTS_IN_LISTS, **_NONE},
    "example-numbers-no-signature": _NONE,
    "example-number-no-signature": _NONE,
    "example-object-of-lists-no-signature": {
        **dict.fromkeys(
            ("inputs, columns", "inputs, rows", "instances, records", "instances, rows"),
            because.READS,
        ),
        "instances, columns": _like(because.READS, "inputs, columns"),
        "inputs, records": because.TEXTS,
        "inputs, one record": because.TEXTS,
    },
    "example-nested-objects-no-signature": {
        "inputs, rows": because.READS,
        "instances, rows": because.READS,
        "instances, records": _like(because.CELLS, "inputs, columns"),
    },
    "hint-whole": {**_HINTED, "2.0": because.EXACT},
    "hint-numbers": {**_HINTED, "1": because.EXACT},
    "hint-bytes": {**_HINTED, "'ü'": because.GARBAGE},
    "hint-frame": {
        **{form: one for form, one in _STRICT.items() if form != "one value for a column"},
        "null": because.NULLS,
        "no rows": because.EMPTY,
    },
    "hint-from-list": {"inputs, none": _without_example(because.EMPTY)},
    "hint-from-frame": _FIRST_BY_EXAMPLE,
    "converses-chat": {
        "as a client, agent": because.UNKNOWN,
        "instances": _like(because.READS, "inputs"),
        "no messages": because.RAISES,
    },
    "converses-agent": {
        "as a client, more": because.UNKNOWN,
        "instances": _like(because.READS, "inputs"),
        "no messages": because.RAISES,
    },
    "converses-plain": {
        "as a client, more": _with_example(because.UNKNOWN),
        "as a client, agent": _with_example(because.UNKNOWN),
        "instances": _with_example(_like(because.READS, "inputs")),
    },
    "torch-exported": {"null": because.NOT_FINITE},
    "xgboost-classifier": {**_PATIENT, "no rows": because.EMPTY},
    "statsmodels-arima": {**TABLE, "dataframe_split, index": because.RAISES},
    "pmdarima": {**TABLE, "dataframe_split, index": because.RAISES},
    "transformers-classifier": dict.fromkeys(_FRAMES, because.RAISES),
    "diffusers": dict.fromkeys(_VALUES, because.RAISES),
    "langchain": {
        **_FIRST_BY_EXAMPLE,
        "dataframe_split, no columns": _with_example(because.POSITIONS),
    },
    "langgraph": {
        "instances": (
            _with_example(_like(because.READS, "inputs")),
            _without_example(because.RAISES),
        )
    },
    "llama-index": dict.fromkeys(_FRAMES, because.RAISES),
    "openai": dict.fromkeys(_ASKS_A_SERVER, because.RAISES),
    "onnx-two-inputs": {"inputs, records": _like(because.TENSOR_ROWS, "inputs, by name")},
}

UNANSWERED = frozenset(
    {
        *(f"answers-{way.replace(' ', '-')}" for way in (*_NO_SPELLING, "raises")),
        *("answers-index", "answers-object-of-frames", "answers-nan", "answers-infinity"),
        *("sklearn-transform", "sklearn-neighbours", "sklearn-words"),
        *("diffusers", "openai"),
    }
)
"""Cases of which no body is answered by both, with an example or without.

MLflow 3.17 loads no estimator by a `predict_fn` that is not one of the usual: `sklearn-transform`
and the two after it. `diffusers` and `openai` need a base model and a server from elsewhere: both
sides raise alike.
"""
