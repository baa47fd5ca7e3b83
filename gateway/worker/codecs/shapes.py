"""The shapes of rows in a JSON body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set as AbstractSet
from dataclasses import replace
from typing import Any

from gateway.worker.errors import MAX_DETAILS, MOST_OF_A_NAME, Detail, invalid, listed
from gateway.worker.rows import tables, tensor_rows, values
from gateway.worker.rows.inputs import join, whole
from gateway.worker.rows.plain_rows import Rows
from gateway.worker.rows.signature import Signature

SHAPES = ("instances", "inputs", "dataframe_split", "dataframe_records", "features")
LLM_MEMBERS = frozenset({"messages", "prompt", "input"})
"""A body with any of these members is one request of an LLM's client, as in MLflow's server."""
_SPLIT_MEMBERS = frozenset({"columns", "data", "index"})
_LABEL_TYPES = frozenset({str, int, float, bool, type(None)})


def read(shape: str, signature: Signature, value: Any) -> Rows:
    """Return the validated rows in a body's member, which is named by one of `SHAPES`.

    Raises:
        RequestRefusedError: ``invalid_input``.
    """
    return _READERS[shape](signature, value)


def read_llm_request(signature: Signature, document: Mapping[str, Any]) -> Rows:
    """Return the rows of a request of an LLM's client: one record, or one whole input.

    Raises:
        RequestRefusedError: The model has no columns, or a member is not one of them.
    """
    if not signature.enforced:
        return whole(dict(document))
    if not signature.columns:
        raise invalid("the model takes no request of an LLM's client: send rows as 'inputs'")
    refuse_unknown(document, {str(column.label) for column in signature.columns})
    return tables.from_records(signature, [document])


def refuse_unknown(given: Mapping[str, Any], known: AbstractSet[str], at: str = "") -> None:
    """Refuse an object with members that are not ``known``.

    Raises:
        RequestRefusedError: There are unknown members; it names them and the known ones.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        named: list[Detail] = [
            (None, f"{at}{name[:MOST_OF_A_NAME]}", "unknown") for name in unknown[:MAX_DETAILS]
        ]
        first = ", ".join(repr(detail[1]) for detail in named[:3])
        message = f"the body has unknown members: {first}; known are {listed(sorted(known))}"
        raise invalid(message, *named)


# --- one function for each shape ----------------------------------------------------------------


def _dataframe_split(signature: Signature, value: Any) -> Rows:
    if type(value) is not dict or type(value.get("data")) is not list:
        raise invalid(
            "'dataframe_split' must be an object with 'columns' and 'data'",
            (None, "dataframe_split", "not an object with 'columns' and 'data'"),
        )
    refuse_unknown(value, _SPLIT_MEMBERS, "dataframe_split.")
    if signature.value is not None:
        raise invalid("the model takes a list of values, one per row: send it as 'inputs'")
    labels = value.get("columns")
    if labels is None:
        labels = _default_labels(signature, value["data"])
    if type(labels) is not list or not all(type(label) in {str, int} for label in labels):
        raise invalid(
            "'columns' must be a list of names",
            (None, "dataframe_split.columns", "not a list of names"),
        )
    rows = tables.from_rows(signature, labels, _cells_as_rows(labels, value["data"]))
    return rows if value.get("index") is None else _with_index(rows, value["index"])


def _default_labels(signature: Signature, data: list[Any]) -> list[Any]:
    """Return labels for a table without any: the signature's, or numbers from 0."""
    if signature.columns:
        return [column.label for column in signature.columns]
    if not data or type(data[0]) is dict:
        return []
    return list(range(len(data[0]) if type(data[0]) is list else 1))


def _cells_as_rows(labels: list[Any], data: list[Any]) -> list[Any]:
    """Return the rows of a table; those of one column may be cells instead of lists."""
    if len(labels) != 1 or not {list, dict}.isdisjoint(map(type, data)):
        return data
    return [[cell] for cell in data]


def _with_index(rows: Rows, index: Any) -> Rows:
    """Return rows with the caller's labels, or unchanged if the labels are numbers from 0."""
    fits = type(index) is list and len(index) == rows.rows
    if not fits or not set(map(type, index)) <= _LABEL_TYPES:
        raise invalid(
            f"'index' must be a list of {rows.rows} labels, one per row",
            (None, "dataframe_split.index", "not a list of a name or number for each row"),
        )
    if all(type(label) is int for label in index) and index == list(range(rows.rows)):
        return rows
    return replace(join([rows]), index=index)


def _dataframe_records(signature: Signature, value: Any) -> Rows:
    records = _list("dataframe_records", value)
    if signature.value is not None:
        return values.from_values(signature.value, records)
    return tables.from_records(signature, records)


def _instances(signature: Signature, value: Any) -> Rows:
    if type(value) is dict and signature.value is None:
        return _inputs(signature, value)
    if not signature.enforced and type(value) is not list and value is not None:
        return values.unruled(value)
    return _many("instances", signature, value)


def _many(shape: str, signature: Signature, value: Any) -> Rows:
    """Read a list of rows, or one value if the model's input has no names."""
    if type(value) is not list:
        if signature.takes_one_value:
            return tensor_rows.from_tensor(signature, value)
        if signature.nameless:
            value = [value]
    rows = _list(shape, value)
    if signature.value is not None:
        return values.from_values(signature.value, rows)
    if rows and type(rows[0]) is dict:
        return _records(signature, rows)
    return _positional(signature, rows)


def _records(signature: Signature, rows: list[Any]) -> Rows:
    if not signature.enforced:
        table = tables.from_records(signature, rows)
        columns = {name: [row.get(name) for row in rows] for name in join([table]).arrays}
        return values.unruled_columns(columns)
    return tables.from_records(signature, rows, as_arrays=True)


def _inputs(signature: Signature, value: Any) -> Rows:
    if not signature.enforced:
        return values.unruled(value)
    if type(value) is not dict or signature.value is not None:
        return _many("inputs", signature, value)
    if signature.tensors:
        return tensor_rows.from_named_tensors(signature, value)
    if signature.is_one_record(value):
        return tables.from_records(signature, [value], as_arrays=True)
    lengths = {len(column) if type(column) is list else -1 for column in value.values()}
    if len(lengths) > 1:  # ignore columns that the signature does not name
        labels = [column.label for column in signature.columns if column.label in value]
        value = {label: value[label] for label in labels}
        lengths = {len(column) if type(column) is list else -1 for column in value.values()}
    if len(lengths) > 1 or -1 in lengths:
        raise invalid("the columns must be lists of one length")
    rows = lengths.pop() if lengths else 1
    return tables.from_columns(signature, value, rows, as_arrays=True)


def _features(signature: Signature, value: Any) -> Rows:
    if signature.value is not None:
        return values.from_values(signature.value, [value])
    if type(value) is dict:
        return tables.from_records(signature, [value])
    row = _list("features", value)
    if signature.tensors and len(signature.tensors[0].shape) == 1:
        return tensor_rows.from_tensor(signature, row)
    return _positional(signature, [row])


def _positional(signature: Signature, rows: list[Any]) -> Rows:
    """Read rows without names: lists in the order of the signature, or a tensor."""
    if not signature.enforced:
        return values.unruled(rows)
    if not signature.columns:
        return tensor_rows.from_tensor(signature, rows)
    labels = [column.label for column in signature.columns]
    if len(labels) == 1 and not any(type(row) is list for row in rows):
        return tables.from_columns(signature, {labels[0]: rows}, len(rows), as_arrays=True)
    return tables.from_rows(signature, labels, rows, as_arrays=True)


def _list(field: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise invalid(f"{field!r} must be a list", (None, field, "not a list"))
    return value


_READERS: dict[str, Callable[[Signature, Any], Rows]] = {
    "dataframe_split": _dataframe_split,
    "dataframe_records": _dataframe_records,
    "instances": _instances,
    "inputs": _inputs,
    "features": _features,
}
