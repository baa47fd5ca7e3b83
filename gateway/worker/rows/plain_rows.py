"""A few rows of plain values: validated as they are, and converted to arrays with their batch.

One small array costs as much as a hundred values, and a batch of one-row requests would make,
check and join four hundred arrays. So values that need no conversion become arrays only once their
batch is known. All others are converted or refused by `gateway.worker.rows.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from gateway.worker.rows import columns
from gateway.worker.rows.inputs import COLUMNS, Form, Inputs, unshared

MOST_ROWS = 64
"""The most rows. For more, an array is smaller than the values and costs less."""
_LARGEST_FLOAT32 = 3.4028234663852886e38


class _Column(NamedTuple):
    """The types and bounds of the plain values of one column."""

    label: str | int
    kind: str
    types: frozenset[type]
    bounds: tuple[float, float] | None


_BOUNDS: dict[str, tuple[float, float]] = {
    "float": (-_LARGEST_FLOAT32, _LARGEST_FLOAT32),
    "long": (-(2**63), 2**63 - 1),
    "integer": (-(2**31), 2**31 - 1),
}


class PlainLayout:
    """The columns of a signature all of whose types have plain values.

    ``specs`` are the label and type of each column, in the signature's order.
    """

    def __init__(self, specs: Sequence[tuple[str | int, str]]) -> None:
        self._columns = [
            _Column(label, kind, columns.PLAIN_TYPES[kind], _BOUNDS.get(kind))
            for label, kind in specs
        ]
        self.labels = frozenset(label for label, _ in specs)

    def take(self, given: Mapping[Any, Sequence[Any]], rows: int) -> PlainRows | None:
        """Return the columns if all are present and have plain values, else None."""
        taken = []
        for label, _, types, bounds in self._columns:
            values = given.get(label)
            if values is None or not types.issuperset(map(type, values)):
                return None
            if bounds is not None and not (bounds[0] <= min(values) and max(values) <= bounds[1]):
                return None
            taken.append(values)
        return PlainRows(self, taken, rows)

    def arrays(self, parts: Sequence[PlainRows]) -> dict[Any, Any]:
        """Return an array for each column, with the rows of all ``parts`` in order."""
        return {
            column.label: columns.plain_array(list(chain.from_iterable(values)), column.kind)
            for column, values in zip(
                self._columns, zip(*(part.values for part in parts), strict=True), strict=True
            )
        }


@dataclass(slots=True)
class PlainRows:
    """Validated rows before their conversion to arrays.

    Attributes:
        values: The values of each column, in the signature's order.
        rows: The number of rows.
        params: The caller's params, validated.
    """

    layout: PlainLayout
    values: list[Sequence[Any]]
    rows: int
    params: dict[str, Any] = field(default_factory=dict)

    def joins_with(self) -> tuple[object, ...]:
        """Return a key; rows with equal keys can be joined."""
        return (self.layout, repr(sorted(self.params.items())) if self.params else "")

    def is_like(self, form: Form) -> bool:
        """Whether ``form`` has the same columns. Plain values are never null."""
        names, labels = form.names, self.layout.labels
        return (names is labels or names == labels) and form.kind == COLUMNS

    def joined(self, others: Sequence[PlainRows]) -> Inputs:
        """Return these rows and those of ``others``, as arrays."""
        parts = [self, *others]
        rows = sum(part.rows for part in parts)
        arrays, params = self.layout.arrays(parts), unshared(self.params)
        return Inputs(COLUMNS, arrays, rows, params, together=len(parts) > 1)


Rows = Inputs | PlainRows
"""The rows of a body; `gateway.worker.rows.inputs.join` returns the `Inputs` of a batch."""
