"""A request's rows after validation: named arrays whose first dimension is the row."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COLUMNS = "columns"
TENSOR = "tensor"
TENSORS = "tensors"
VALUES = "values"
WHOLE = "whole"
TENSOR_NAME = ""
"""The name of the one array of an unnamed tensor, of values, and of a whole."""


class Form(NamedTuple):
    """The form of rows: the traits on which a model's treatment of rows may depend.

    Attributes:
        kind: As in `Inputs`.
        names: The names of the arrays.
        nulls: The names of arrays in which nulls are covered, or cannot occur.
    """

    kind: str
    names: frozenset[Any]
    nulls: frozenset[Any]


@dataclass(frozen=True)
class Inputs:
    """Validated rows.

    Attributes:
        kind: `COLUMNS` (one array per column), `TENSOR` (one array), `TENSORS` (named arrays),
            `VALUES` (an array of objects, one per row) or `WHOLE` (one value that has no rows).
        arrays: ``numpy`` arrays by name, in the signature's order; shape ``(rows, …)``.
        rows: The number of rows.
        params: The caller's params, validated.
        index: The caller's labels of a table's rows, or None if they are numbered from 0.
        together: Whether the rows are of several requests, or represent such in a proof.
    """

    kind: str
    arrays: dict[str, Any]
    rows: int
    params: dict[str, Any] = field(default_factory=dict)
    index: list[Any] | None = None
    together: bool = False

    def joins_with(self) -> tuple[object, ...]:
        """Return a key; inputs with equal keys can be joined.

        Rows with a caller's labels are never joined: another caller may use the same labels.
        """
        if self.index is not None or self.kind == WHOLE:
            return (object(),)
        shapes = tuple(
            (name, array.dtype.str, array.shape[1:]) for name, array in self.arrays.items()
        )
        return (self.kind, shapes, repr(sorted(self.params.items())))

    def form(self) -> Form:
        """Return the form of the rows."""
        nulls = frozenset(name for name, array in self.arrays.items() if _has_null(array))
        return Form(self.kind, frozenset(self.arrays), nulls)

    def is_like(self, form: Form) -> bool:
        """Whether ``form`` has the same arrays and covers their nulls."""
        if self.kind != form.kind or self.arrays.keys() != form.names:
            return False
        return not any(
            name not in form.nulls and _has_null(array) for name, array in self.arrays.items()
        )

    def joined(self, others: Sequence[Inputs]) -> Inputs:
        """Return these rows and those of ``others``, in order; all have equal ``joins_with``.

        The result of several shares no data with them: if the model changes it and then raises,
        each request is predicted alone from its own data.
        """
        if not others:
            return self
        import numpy as np

        parts = [self, *others]
        arrays = {
            name: _with_own_cells(np.concatenate([part.arrays[name] for part in parts]))
            for name in self.arrays
        }
        rows = sum(part.rows for part in parts)
        return Inputs(self.kind, arrays, rows, unshared(self.params), together=True)

    def native(self) -> Any:
        """Return the input of a pyfunc: a DataFrame, an array, arrays by name, a list, a value."""
        if self.kind == TENSOR:
            return self.arrays[TENSOR_NAME]
        if self.kind == TENSORS:
            return self.arrays
        if self.kind == VALUES:
            return self.arrays[TENSOR_NAME].tolist()
        if self.kind == WHOLE:
            return self.arrays[TENSOR_NAME][0]
        import pandas as pd

        return pd.DataFrame(self.arrays, index=self.index)

    def copy(self) -> Inputs:
        """Return a copy with arrays of its own, since a model may change its input."""
        arrays = {name: _copied(array) for name, array in self.arrays.items()}
        return Inputs(self.kind, arrays, self.rows, self.params, self.index, self.together)

    def take(self, rows: Sequence[int]) -> Inputs:
        """Return the rows with these numbers, in this order."""
        arrays = {name: array[list(rows)] for name, array in self.arrays.items()}
        index = None if self.index is None else [self.index[row] for row in rows]
        return Inputs(self.kind, arrays, len(rows), self.params, index, self.together)


def whole(value: Any) -> Inputs:
    """Return one value as the whole input: one row, which is never joined."""
    import numpy as np

    array = np.empty(1, dtype=object)
    array[0] = value
    return Inputs(WHOLE, {TENSOR_NAME: array}, 1)


def _copied(array: Any) -> Any:
    """Return a copy of an array; lists and objects in it are copied too."""
    return deepcopy(array) if array.dtype.kind == "O" else array.copy()


def _has_null(array: Any) -> bool:
    """Whether an array has a null: NaN, NaT or None, also inside its lists and objects."""
    import numpy as np

    if array.dtype.kind == "f":
        return bool(np.isnan(array).any())
    if array.dtype.kind == "M":
        return bool(np.isnat(array).any())
    return array.dtype.kind == "O" and any(map(_is_or_holds_null, array.flat))


def _is_or_holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_or_holds_null, value.values()))
    if isinstance(value, list):
        return any(map(_is_or_holds_null, value))
    if hasattr(value, "dtype"):
        return _has_null(value)
    return value is None or value != value  # noqa: PLR0124  # NaN is not itself


def unshared(value: Any) -> Any:
    """Return a copy of JSON, whose lists may be arrays; immutable values are shared."""
    if type(value) is list:
        return [unshared(one) for one in value]
    if type(value) is dict:
        return {name: unshared(one) for name, one in value.items()}
    return _copied(value) if hasattr(value, "dtype") else value


def _with_own_cells(array: Any) -> Any:
    """Return a new array with its cells unshared if they are mutable."""
    if array.dtype.kind != "O":
        return array
    import numpy as np

    cells = (unshared(cell) for cell in array.ravel())
    return np.fromiter(cells, dtype=object, count=array.size).reshape(array.shape)


def join(parts: Sequence[Any]) -> Inputs:
    """Join the rows of ``parts`` in order; all have equal ``joins_with``."""
    return parts[0].joined(parts[1:])  # type: ignore[no-any-return]  # of Inputs or PlainRows
