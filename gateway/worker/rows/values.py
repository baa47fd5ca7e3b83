"""Rows of a model with a type hint, and input of a model without a signature.

A model without a signature gets the same as from MLflow's scoring server: arrays for ``inputs`` and
``instances``, and unchanged JSON for a request of an LLM's client.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from gateway.worker.errors import MAX_DETAILS, Detail, RequestRefusedError, invalid, refuse_if_any
from gateway.worker.rows import nested, tensor_rows, tensors
from gateway.worker.rows.inputs import TENSOR_NAME, TENSORS, VALUES, Inputs, whole
from gateway.worker.rows.signature import Signature


def from_values(type_: nested.Type, values: Sequence[Any]) -> Inputs:
    """Read a list of values, one per row, for a model with a type hint.

    Raises:
        RequestRefusedError: The list is empty, or a string in it is malformed base64 or no date.
    """
    if not values:
        raise invalid("the input has no rows")
    converted: list[Any] = []
    details: list[Detail] = []
    for row, value in enumerate(values):
        one, garbled = nested.convert(type_, value)
        converted.append(one)
        details += [(row, at or None, reason) for at, reason in garbled]
        if len(details) >= MAX_DETAILS:
            break
    refuse_if_any(details)
    return _rows(converted)


def misfits(signature: Signature, inputs: Inputs) -> list[Detail]:
    """Return where inputs that MLflow refused differ from the type of the model's hint.

    Empty for columns and tensors, which were validated before.
    """
    if signature.value is None or inputs.kind != VALUES:
        return []
    details = (
        (row, at or None, reason)
        for row, value in enumerate(inputs.arrays[TENSOR_NAME])
        for at, reason in nested.faults_of(signature.value, value)
    )
    return list(islice(details, MAX_DETAILS))


def unruled(value: Any) -> Inputs:
    """Read ``inputs`` for a model without a signature.

    Raises:
        RequestRefusedError: It is null, or has no rows or columns.
    """
    if value is None:
        raise invalid("'inputs' must not be null", (None, "inputs", "null"))
    if type(value) is dict:
        return unruled_columns(value)
    if type(value) is not list:
        return whole(_array(value))
    if not value:
        raise invalid("the input has no rows")
    if all(type(one) is dict for one in value):
        return _rows([{name: _array(part) for name, part in one.items()} for one in value])
    try:
        return tensor_rows.from_tensor(Signature(), value)
    except RequestRefusedError:
        if not all(type(one) is list for one in value):
            raise
        return _rows(value)  # lists of several lengths: no array can hold them


def unruled_columns(given: dict[str, Any]) -> Inputs:
    """Read arrays by name for a model without a signature.

    Raises:
        RequestRefusedError: There are no columns.
    """
    if not given:
        raise invalid("the input has no columns")
    arrays = {name: _array(value) for name, value in given.items()}
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(lengths) == 1 and (rows := lengths.pop()):
        return Inputs(TENSORS, arrays, rows)
    return whole(arrays)


def _rows(values: Sequence[Any]) -> Inputs:
    import numpy as np

    return Inputs(VALUES, {TENSOR_NAME: np.fromiter(values, object, len(values))}, len(values))


def _array(value: Any) -> Any:
    """Return JSON as an array; objects and ragged lists as a zero-dimensional array of objects."""
    import numpy as np

    if type(value) is list:
        try:
            return tensors.infer_tensor(value)
        except RequestRefusedError:
            pass
    elif type(value) is not dict:
        return np.array(value)
    array = np.empty((), dtype=object)
    array[()] = value
    return array
