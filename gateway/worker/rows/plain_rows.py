"""A few rows of plain values: checked as they are, and made arrays with those they are joined with.

One small array costs as much as a hundred values, and a batch of requests with a row each would
make, check and join four hundred of them. So what fits a signature as it came stays as it is until
its batch is known. Whatever does not fit plainly goes the way of `gateway.worker.columns`, which
converts, or says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from gateway.worker.rows import columns
from gateway.worker.rows.inputs import COLUMNS, Form, Inputs, unshared

MOST_ROWS = 64
"""Of more rows an array is smaller than the values, and costs less than to keep them."""
_LARGEST_FLOAT32 = 3.4028234663852886e38


class _Column(NamedTuple):
    """What plain values of one column are: of these types, and within these bounds."""

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
    """The columns of a signature all of whose types have plain values."""

    def __init__(self, specs: Sequence[tuple[str | int, str]]) -> None:
        """``specs``: label and type of each column, in the signature's order."""
        self._columns = [
            _Column(label, kind, columns.PLAIN_TYPES[kind], _BOUNDS.get(kind))
            for label, kind in specs
        ]
        self.labels = frozenset(label for label, _ in specs)

    def take(self, given: Mapping[Any, Sequence[Any]], rows: int) -> PlainRows | None:
        """Return the columns if all are there and fit as they are, else None."""
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
    """Validated rows that are no arrays yet.

    Attributes:
        values: The values of each column, in the signature's order.
        rows: How many rows.
        params: The caller's params, validated.
    """

    layout: PlainLayout
    values: list[Sequence[Any]]
    rows: int
    params: dict[str, Any] = field(default_factory=dict)

    def joins_with(self) -> tuple[object, ...]:
        """Return a key; those with equal keys can be joined into one."""
        return (self.layout, repr(sorted(self.params.items())) if self.params else "")

    def is_like(self, form: Form) -> bool:
        """Whether the columns are those of ``form``: plain values are never null."""
        names, labels = form.names, self.layout.labels
        return (names is labels or names == labels) and form.kind == COLUMNS

    def joined(self, others: Sequence[PlainRows]) -> Inputs:
        """Return these rows and those of ``others``, as arrays."""
        parts = [self, *others]
        rows = sum(part.rows for part in parts)
        arrays, params = self.layout.arrays(parts), unshared(self.params)
        return Inputs(COLUMNS, arrays, rows, params, together=len(parts) > 1)


Rows = Inputs | PlainRows
"""The rows of a body; `gateway.worker.rows.inputs.join` makes `Inputs` of a batch."""
