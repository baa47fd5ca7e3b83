"""Tables: columns, rows and records of JSON, validated by a signature's columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.worker.errors import MAX_DETAILS, Detail, RequestRefusedError, invalid, refuse_if_any
from gateway.worker.rows import columns, nested, tensor_rows
from gateway.worker.rows.inputs import COLUMNS, Inputs
from gateway.worker.rows.plain_rows import MOST_ROWS, Rows
from gateway.worker.rows.signature import Column, Signature

_MAX_SPARSENESS = 64
"""The most cells of a table of records, per value in the records."""


def from_columns(
    signature: Signature, given: Mapping[Any, Sequence[Any]], rows: int, *, as_arrays: bool = False
) -> Rows:
    """Validate columns, each a sequence of ``rows`` JSON values; extra columns are dropped.

    With ``as_arrays``, cells that are lists become arrays.

    Raises:
        RequestRefusedError: A column is missing, or a value does not fit.
    """
    if rows < 1:
        raise invalid("the input has no rows")
    if not given:
        raise invalid("the input has no columns")
    if not signature.enforced:
        arrays = {name: columns.infer(values) for name, values in given.items()}
        return Inputs(COLUMNS, arrays, rows)
    if signature.tensors:
        return tensor_rows.from_columns(signature, given)
    if rows <= MOST_ROWS and signature.plain is not None:
        plain = signature.plain.take(given, rows)
        if plain is not None:
            return plain
    refuse_if_any(
        (None, str(column.label), "required and missing")
        for column in signature.columns
        if column.required and column.label not in given
    )
    arrays = _arrays(signature.columns, given, as_arrays=as_arrays)
    if not arrays:
        raise invalid("the input must have at least one of the model's columns")
    return Inputs(COLUMNS, arrays, rows)


def _arrays(
    specs: Sequence[Column], given: Mapping[Any, Sequence[Any]], *, as_arrays: bool
) -> dict[str, Any]:
    """Convert each column; collect the faults of all.

    Raises:
        RequestRefusedError: A value does not fit.
    """
    arrays: dict[Any, Any] = {}
    details: list[Detail] = []
    for column in specs:
        values = given.get(column.label)
        if values is None or (not column.required and _is_only_null(column.kind, values)):
            continue
        try:
            if column.holder is not None:
                values = _bound(str(column.label), column.holder, values, as_arrays=as_arrays)
            arrays[column.label] = columns.to_array(
                str(column.label), values, column.kind, required=column.required
            )
        except RequestRefusedError as refusal:
            details.extend(refusal.details)
            if len(details) >= MAX_DETAILS:
                break
    refuse_if_any(details)
    return arrays


def _bound(label: str, holder: nested.Type, values: Sequence[Any], *, as_arrays: bool) -> list[Any]:
    """Return a column of lists or objects, as MLflow takes them."""
    bound: list[Any] = []
    details: list[Detail] = []
    # MLflow would turn a list of dates into numbers.
    in_arrays = holder.held is not None and (as_arrays or holder.held.kind == "datetime")
    for row, value in enumerate(values):
        faults: list[nested.Fault] = []
        one = nested.bind(holder, value, faults)
        bound.append(nested.cell(one) if in_arrays else one)
        details += [(row, f"{label}{_suffix(at)}", reason) for at, reason in faults]
        if len(details) >= MAX_DETAILS:
            break
    refuse_if_any(details)
    return bound


def _suffix(at: str) -> str:
    return at if not at or at.startswith("[") else f".{at}"


def _is_only_null(kind: str, values: Sequence[Any]) -> bool:
    """Whether a column has only nulls, in a type without null: it counts as absent.

    Other types keep the column, as NaN or None, for models that fill in missing values.
    """
    return kind in columns.WHOLE_TYPES and all(value is None for value in values)


def from_rows(
    signature: Signature,
    labels: Sequence[Any],
    data: Sequence[Any],
    *,
    as_arrays: bool = False,
) -> Rows:
    """Validate rows, each a list with one value per label; see `from_columns`.

    Raises:
        RequestRefusedError: A row is no list or of another length, or a value does not fit.
    """
    if len(set(labels)) != len(labels):
        raise invalid("each column must be named once")
    width = len(labels)
    refuse_if_any(
        (
            (row, None, f"not a list of {width} values")
            for row, values in enumerate(data)
            if type(values) is not list or len(values) != width
        ),
        "the rows must have one value per column",
    )
    given = dict(zip(labels, zip(*data, strict=True), strict=True)) if data else {}
    return from_columns(signature.labelled(labels), given, len(data), as_arrays=as_arrays)


def from_records(signature: Signature, records: Sequence[Any], *, as_arrays: bool = False) -> Rows:
    """Validate records, each an object with a value per column; see `from_columns`.

    Raises:
        RequestRefusedError: A record is no object, lacks a required column, or does not fit.
    """
    refuse_if_any(
        (
            (row, None, "not an object of columns")
            for row, record in enumerate(records)
            if type(record) is not dict
        ),
        "the rows must be objects",
    )
    if signature.nameless:
        signature = signature.labelled(list(records[0]) if records else [])
    if signature.columns:
        refuse_if_any(
            (row, str(column.label), "required and missing")
            for column in signature.columns
            if column.required
            for row, record in enumerate(records)
            if column.label not in record
        )
        labels: Sequence[Any] = [
            column.label
            for column in signature.columns
            if column.required or any(column.label in record for record in records)
        ]
    else:
        labels = list(dict.fromkeys(name for record in records for name in record))
        given_values = sum(map(len, records))
        if len(labels) * len(records) > _MAX_SPARSENESS * given_values:
            # The table's size would be the square of the body's.
            raise invalid(
                "the rows have too few columns in common: send them with the same columns"
            )
    lacking_value = None if signature.enforced else math.nan  # as in a DataFrame of records
    given = {label: [record.get(label, lacking_value) for record in records] for label in labels}
    return from_columns(signature, given, len(records), as_arrays=as_arrays)
