"""A model's signature, and the validation of JSON rows against it.

Read from MLflow's own JSON (the lists under ``signature`` of an MLmodel), without MLflow: our
answers name the row and the field, and MLflow's own would repeat the caller's data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from gateway.worker import columns, tensors
from gateway.worker.inputs import COLUMNS, TENSOR, TENSOR_NAME, TENSORS, Inputs, Rows
from gateway.worker.plain_rows import MOST_ROWS, PlainLayout
from gateway.worker.refusals import MAX_DETAILS, Detail, RequestRefusedError, invalid

_MAX_SPARSENESS = 64
"""Cells of the table that records make, for each value that they give."""
MISFIT = "the input does not fit the model's signature"


@dataclass(frozen=True)
class Column:
    """One column. ``kind`` is MLflow's name of the type; ``label`` is a name or a position."""

    label: str | int
    kind: str
    required: bool = True


@dataclass(frozen=True)
class Tensor:
    """One tensor; ``name`` is empty where the model takes one that has none."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One param: its type, and its default where the caller gives none."""

    name: str
    kind: str
    default: Any
    is_list: bool


@dataclass(frozen=True)
class Signature:
    """What a model takes. At most one of ``columns`` and ``tensors`` is not empty."""

    columns: tuple[Column, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    params: tuple[Param, ...] = field(default=())

    @property
    def enforced(self) -> bool:
        """Whether there is anything to validate against."""
        return bool(self.columns or self.tensors)

    @cached_property
    def plain(self) -> PlainLayout | None:
        """How plain values are read; None: there are columns of types that have none."""
        if not all(column.kind in columns.PLAIN_TYPES for column in self.columns):
            return None
        return PlainLayout([(column.label, column.kind) for column in self.columns])


def parse(signature: Mapping[str, Any] | None) -> Signature:
    """Read the description's ``signature``.

    Raises:
        ValueError: It is not MLflow's JSON.
    """
    if not signature:
        return Signature()
    try:
        specs = list(signature.get("inputs") or ())
        params = tuple(
            Param(spec["name"], spec["type"], spec.get("default"), bool(spec.get("shape")))
            for spec in signature.get("params") or ()
        )
        if specs and specs[0]["type"] == "tensor":
            return Signature(tensors=tuple(map(_tensor, specs)), params=params)
        return Signature(
            columns=tuple(_column(position, spec) for position, spec in enumerate(specs)),
            params=params,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the signature is not MLflow's: {error!r}") from error


def _column(position: int, spec: Mapping[str, Any]) -> Column:
    label = spec["name"] if spec.get("name") is not None else position
    return Column(label, spec["type"], bool(spec.get("required", True)))


def _tensor(spec: Mapping[str, Any]) -> Tensor:
    inner = spec["tensor-spec"]
    return Tensor(spec.get("name") or TENSOR_NAME, inner["dtype"], tuple(inner["shape"]))


# --- columns ------------------------------------------------------------------------------------


def from_columns(signature: Signature, given: Mapping[Any, Sequence[Any]], rows: int) -> Rows:
    """Validate columns: each a sequence of ``rows`` JSON values. Extra ones are dropped.

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
        return _tensors_from_columns(signature, given)
    if rows <= MOST_ROWS and signature.plain is not None:
        plain = signature.plain.take(given, rows)
        if plain is not None:
            return plain
    missing: list[Detail] = [
        (None, str(column.label), "required and missing")
        for column in signature.columns
        if column.required and column.label not in given
    ]
    if missing:
        raise invalid(MISFIT, *missing[:MAX_DETAILS])
    arrays = _arrays(signature.columns, given)
    if not arrays:
        raise invalid("the input has none of the model's columns")
    return Inputs(COLUMNS, arrays, rows)


def _arrays(specs: Sequence[Column], given: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
    """Convert each column, collecting what is wrong with any of them."""
    arrays: dict[Any, Any] = {}
    details: list[Detail] = []
    for column in specs:
        values = given.get(column.label)
        if values is None or (not column.required and _is_only_null(column.kind, values)):
            continue
        try:
            arrays[column.label] = columns.to_array(
                str(column.label), values, column.kind, required=column.required
            )
        except RequestRefusedError as refusal:
            details.extend(refusal.details)
            if len(details) >= MAX_DETAILS:
                break
    if details:
        raise invalid(MISFIT, *details)
    return arrays


def _is_only_null(kind: str, values: Sequence[Any]) -> bool:
    """Whether a column has nothing but nulls, and a type that cannot say so: it counts as absent.

    Other types keep it, as NaN or None: a model that fills in what is missing needs the column.
    """
    return kind in columns.WHOLE_TYPES and all(value is None for value in values)


def from_rows(signature: Signature, labels: Sequence[Any], data: Sequence[Any]) -> Rows:
    """Validate rows: each a list with one value per label.

    Raises:
        RequestRefusedError: A row is no list or of another length, or a value does not fit.
    """
    if len(set(labels)) != len(labels):
        raise invalid("a column is named twice")
    width = len(labels)
    bad = _first(
        (row, None, f"not a list of {width} values")
        for row, values in enumerate(data)
        if type(values) is not list or len(values) != width
    )
    if bad:
        raise invalid("the rows are not as long as the columns", *bad)
    given = dict(zip(labels, zip(*data, strict=True), strict=True)) if data else {}
    return from_columns(signature, given, len(data))


def from_records(signature: Signature, records: Sequence[Any]) -> Rows:
    """Validate records: each an object with a value per column.

    Raises:
        RequestRefusedError: A record is no object, lacks a required column, or does not fit.
    """
    bad = _first(
        (row, None, "not an object of columns")
        for row, record in enumerate(records)
        if type(record) is not dict
    )
    if bad:
        raise invalid("the rows are not all objects", *bad)
    if signature.columns:
        lacking = _first(
            (row, str(column.label), "required and missing")
            for column in signature.columns
            if column.required
            for row, record in enumerate(records)
            if column.label not in record
        )
        if lacking:
            raise invalid(MISFIT, *lacking)
        labels: Sequence[Any] = [
            column.label
            for column in signature.columns
            if column.required or any(column.label in record for record in records)
        ]
    else:
        labels = list(dict.fromkeys(name for record in records for name in record))
        given_values = sum(map(len, records))
        if len(labels) * len(records) > _MAX_SPARSENESS * given_values:
            # As a table they would be the square of the body's size.
            raise invalid("the rows have too few columns in common")
    given = {label: [record.get(label) for record in records] for label in labels}
    return from_columns(signature, given, len(records))


def _first(details: Iterable[Detail]) -> list[Detail]:
    """Return as many as are told. A large body may have a million of them: never hold them all."""
    return list(islice(details, MAX_DETAILS))


# --- tensors ------------------------------------------------------------------------------------


def from_tensor(signature: Signature, value: Any) -> Inputs:
    """Validate one unnamed tensor, as nested lists; the first dimension is the row.

    Raises:
        RequestRefusedError: The model takes named ones, or shape or elements do not fit.
    """
    if not signature.enforced:
        array = tensors.infer_tensor(value)
    else:
        if len(signature.tensors) != 1:
            names = ", ".join(repr(spec.name) for spec in signature.tensors)
            raise invalid(f"the model takes several tensors, by name: {names}")
        spec = signature.tensors[0]
        array = tensors.to_tensor(spec.name, value, spec.dtype, spec.shape)
        if spec.name != TENSOR_NAME:
            return _with_rows(TENSORS, {spec.name: array})
    return _with_rows(TENSOR, {TENSOR_NAME: array})


def from_named_tensors(signature: Signature, given: Mapping[str, Any]) -> Inputs:
    """Validate tensors by name.

    Raises:
        RequestRefusedError: One is missing, or shape or elements do not fit.
    """
    missing: list[Detail] = [
        (None, spec.name or None, "required and missing")
        for spec in signature.tensors
        if spec.name not in given
    ]
    if missing:
        raise invalid(MISFIT, *missing[:MAX_DETAILS])
    arrays = {
        spec.name: tensors.to_tensor(spec.name, given[spec.name], spec.dtype, spec.shape)
        for spec in signature.tensors
    }
    return _with_rows(TENSORS, arrays)


def _tensors_from_columns(signature: Signature, given: Mapping[Any, Sequence[Any]]) -> Inputs:
    """Read a table as what a tensor model takes: by name, or all of it as one matrix."""
    if signature.tensors[0].name != TENSOR_NAME:
        return from_named_tensors(signature, {name: list(part) for name, part in given.items()})
    return from_tensor(signature, [list(row) for row in zip(*given.values(), strict=True)])


def _with_rows(kind: str, arrays: dict[str, Any]) -> Inputs:
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1:
        raise invalid("the tensors have different numbers of rows")
    rows = lengths.pop()
    if rows < 1:
        raise invalid("the input has no rows")
    return Inputs(kind, arrays, rows)


# --- params -------------------------------------------------------------------------------------


def validate_params(signature: Signature, given: Any) -> dict[str, Any]:
    """Return every param of the signature, from ``given`` or by default; unknown ones are dropped.

    Raises:
        RequestRefusedError: ``given`` is no object, or a value is not of its type.
    """
    if given is None:
        given = {}
    if type(given) is not dict:
        raise invalid("the params are not an object", (None, "params", "not an object"))
    validated: dict[str, Any] = {}
    details: list[Detail] = []
    for param in signature.params:
        value = given.get(param.name, param.default)
        if value is not None and param.name in given and not _param_fits(param, value):
            expected = f"a list of {param.kind}" if param.is_list else param.kind
            details.append((None, f"params.{param.name}", f"not {expected}"))
        validated[param.name] = value
    if details:
        raise invalid("the params do not fit the model's signature", *details)
    return validated


def _param_fits(param: Param, value: Any) -> bool:
    if param.kind not in columns.SCALAR_TYPES:
        return True
    values = value if param.is_list else [value]
    if type(values) is not list:
        return False
    try:
        columns.to_array(param.name, values, param.kind, required=True)
    except RequestRefusedError:
        return False
    return True
