"""Variations of an input example: changed, scattered, and far from it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.worker.rows.inputs import Inputs

_MAX_PROOF_ROWS = 16
_SCATTERED_ROWS = 16
_LARGEST_SCATTERED = 2**52
"""Larger whole numbers could be rounded as doubles when they are moved."""


def compared(example: Inputs) -> Inputs:
    """Return the rows of the example with which joining is proved."""
    return example.take(range(min(example.rows, _MAX_PROOF_ROWS)))


def vary(example: Inputs) -> list[Inputs]:
    """Return inputs that differ from each other, the example first.

    Floating-point numbers are changed a little. Other values may be names of things and stay, so
    an example without such numbers is varied by its own rows.
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
            varied.append(replace(first, arrays=arrays))
    elif rows > 1:
        varied.extend(
            first.take([row])
            for row in range(1, rows)
            if not all(np.array_equal(a[row], a[0]) for a in first.arrays.values())
        )
    return varied


def scatter(example: Inputs) -> list[Inputs]:
    """Return rows near the example's whose columns are independent of each other.

    They distinguish a model that finds its columns by name from one that finds them by position.
    The second result has the values of the first in other columns. Deterministic; types stay.
    """
    import numpy as np

    dice = np.random.default_rng(0)
    rows = [row % example.rows for row in range(_SCATTERED_ROWS)] if example.rows else []
    base = example.take(rows)
    arrays = {name: _scattered(array, dice) for name, array in base.arrays.items()}
    scattered = [replace(base, arrays=arrays)]
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
        scattered.append(replace(base, arrays=arrays | swapped))
    return scattered


def _scattered(array: Any, dice: Any) -> Any:
    """Return numbers of similar size, negative only if the input has such; or shuffled rows."""
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
    """Return rows far from the example's, which the model may reject.

    Joined with them, a row reveals whether others influence it. With ``whole``, whole numbers are
    changed too: they may be positions in a table, and some libraries crash beyond its end.
    """
    far = []
    for factor, offset in ((-8, -1000), (100, 1000)):
        arrays = {
            name: _far(array, factor, offset, whole=whole) for name, array in example.arrays.items()
        }
        if any(arrays[name] is not array for name, array in example.arrays.items()):
            far.append(replace(example, arrays=arrays))
    return far


def _far(array: Any, factor: int, offset: int, *, whole: bool) -> Any:
    """Return ``array`` with numbers far away, or itself if its type cannot hold them."""
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
