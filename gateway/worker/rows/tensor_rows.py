"""Tensors of JSON, validated by a signature's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.worker.errors import invalid, listed, refuse_if_any
from gateway.worker.rows import tensors
from gateway.worker.rows.inputs import TENSOR, TENSOR_NAME, TENSORS, Inputs, whole
from gateway.worker.rows.signature import Signature


def from_tensor(signature: Signature, value: Any) -> Inputs:
    """Validate one unnamed tensor, as nested lists; the first dimension is the row.

    Raises:
        RequestRefusedError: The model takes several tensors, or shape or elements do not fit.
    """
    if not signature.enforced:
        array = tensors.infer_tensor(value)
    else:
        if len(signature.tensors) != 1:
            names = listed([spec.name for spec in signature.tensors])
            raise invalid(f"the input must be an object of tensors by name: {names}")
        spec = signature.tensors[0]
        array = tensors.to_tensor(spec.name, value, spec.dtype, spec.shape)
        if spec.name != TENSOR_NAME:
            return _with_rows(TENSORS, {spec.name: array})
    return _with_rows(TENSOR, {TENSOR_NAME: array})


def from_named_tensors(signature: Signature, given: Mapping[str, Any]) -> Inputs:
    """Validate tensors by name.

    Raises:
        RequestRefusedError: A tensor is missing, or shape or elements do not fit.
    """
    refuse_if_any(
        (None, spec.name or None, "required and missing")
        for spec in signature.tensors
        if spec.name not in given
    )
    arrays = {
        spec.name: tensors.to_tensor(spec.name, given[spec.name], spec.dtype, spec.shape)
        for spec in signature.tensors
    }
    return _with_rows(TENSORS, arrays)


def from_columns(signature: Signature, given: Mapping[Any, Sequence[Any]]) -> Inputs:
    """Read a table for a tensor model: its columns as tensors by name, or all as one matrix.

    The cells of a single column are the rows if they are lists, or if the tensor has one dimension.
    """
    spec = signature.tensors[0]
    if spec.name != TENSOR_NAME:
        return from_named_tensors(signature, {name: list(part) for name, part in given.items()})
    if len(given) == 1:
        (column,) = given.values()
        if len(spec.shape) == 1 or type(column[0]) is list:
            return from_tensor(signature, list(column))
    return from_tensor(signature, [list(row) for row in zip(*given.values(), strict=True)])


def _with_rows(kind: str, arrays: dict[str, Any]) -> Inputs:
    """Return arrays as rows, or as one whole if they have no common first dimension."""
    lengths = {array.shape[0] if array.ndim else None for array in arrays.values()}
    if lengths == {0}:
        raise invalid("the input has no rows")
    if len(lengths) == 1 and (rows := lengths.pop()):
        return Inputs(kind, arrays, rows)
    return whole(arrays[TENSOR_NAME] if kind == TENSOR else arrays)
