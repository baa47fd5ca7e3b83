"""Variations of an input example: shuffled, scattered, and far from what it says. Pure."""

from __future__ import annotations

from typing import Any

from gateway.worker.rows.inputs import Inputs

_MAX_PROOF_ROWS = 16
_SCATTERED_ROWS = 16
_LARGEST_SCATTERED = 2**52
"""Whole numbers beyond it are not all ones in double precision."""


def compared(example: Inputs) -> Inputs:
    """Return the rows of the example that joining is proved with."""
    return example.take(range(min(example.rows, _MAX_PROOF_ROWS)))


def vary(example: Inputs) -> list[Inputs]:
    """Return inputs that differ from each other: rows of the example, and changed numbers.

    Numbers that are not whole are changed a little; the rest may name things, and stays.
    """
    import numpy as np

    first = compared(example)
    rows = first.rows
    varied = [first]
    if any(array.dtype.kind == "f" for array in first.arrays.values()):
        for step in (1, 2):
            arrays = {
                name: (array * (1 + 0.125 * step) + 0.25 * step).astype(array.dtype)
                if array.dtype.kind == "f"
                else array
                for name, array in first.arrays.items()
            }
            varied.append(Inputs(first.kind, arrays, rows, first.params))
    elif rows > 1:
        varied.extend(
            first.take([row])
            for row in range(1, rows)
            if not all(np.array_equal(a[row], a[0]) for a in first.arrays.values())
        )
    return varied


def scatter(example: Inputs) -> list[Inputs]:
    """Return rows around the example's in which no column goes with another one.

    They tell a model that looks for its columns by their names from one that looks for them by
    their places. The second of them have the values of the first in other columns. The same for
    the same example, and of its types.
    """
    import numpy as np

    dice = np.random.default_rng(0)
    rows = [row % example.rows for row in range(_SCATTERED_ROWS)] if example.rows else []
    base = example.take(rows)
    arrays = {name: _scattered(array, dice) for name, array in base.arrays.items()}
    scattered = [Inputs(base.kind, arrays, base.rows, base.params)]
    by_type: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.dtype.kind in "fiu":
            by_type.setdefault(str((array.dtype, array.shape)), []).append(name)
    swapped = {
        name: arrays[other]
        for names in by_type.values()
        for name, other in zip(names, [*names[1:], names[0]], strict=True)
        if name != other
    }
    if swapped:
        scattered.append(Inputs(base.kind, arrays | swapped, base.rows, base.params))
    return scattered


def _scattered(array: Any, dice: Any) -> Any:
    """Return other numbers about as large, none below zero where there is none; or other rows."""
    import numpy as np

    rows = array[dice.permutation(len(array))]
    if array.dtype.kind not in "fiu":
        return rows
    numbers = array.astype("float64")
    spread = max(3.0, float(np.max(np.abs(numbers), initial=0.0, where=np.isfinite(numbers))))
    moved = numbers + spread * dice.uniform(-1, 1, numbers.shape)
    if not (numbers < 0).any():
        moved = np.abs(moved)
    if array.dtype.kind != "f":
        if spread > _LARGEST_SCATTERED:
            return rows
        limits = np.iinfo(array.dtype)
        moved = np.clip(np.rint(moved), limits.min, limits.max)
    with np.errstate(over="ignore"):
        return moved.astype(array.dtype)


def vary_far(example: Inputs, *, whole: bool) -> list[Inputs]:
    """Return rows that are nothing like the example's, and may be nonsense to the model.

    Beside them a row shows by how much others influence it.

    Args:
        example: Inputs; what follows from them has their types.
        whole: Whether whole numbers are changed too. They may be positions in a table, beyond
            the end of which some libraries do worse than raise.
    """
    far = []
    for factor, offset in ((-8, -1000), (100, 1000)):
        arrays = {
            name: _far(array, factor, offset, whole=whole) for name, array in example.arrays.items()
        }
        if any(arrays[name] is not array for name, array in example.arrays.items()):
            far.append(Inputs(example.kind, arrays, example.rows, example.params))
    return far


def _far(array: Any, factor: int, offset: int, *, whole: bool) -> Any:
    """Return ``array`` far away, or itself where its type has no such numbers."""
    import numpy as np

    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            moved = (array * factor + offset).astype(array.dtype)
        return array if np.isinf(moved).any() else moved
    if whole and array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(array.dtype)
        ends = [int(end) * factor + offset for end in (array.min(), array.max())]
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return array * factor + offset
    return array
