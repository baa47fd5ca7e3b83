"""Which waiting requests are predicted together. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.worker.protocol.messages import Predict
from gateway.worker.rows.inputs import Rows


class Waiting(NamedTuple):
    """A validated request that has not begun.

    Attributes:
        id: The frame's id.
        request: The frame's header.
        inputs: Its rows.
        received_at: ``time.monotonic()`` of its arrival.
        body_bytes: Size of its body.
        key: Only requests with equal keys may be joined; one that must go alone has its id.
    """

    id: int
    request: Predict
    inputs: Rows
    received_at: float
    body_bytes: int
    key: Hashable


@dataclass(frozen=True)
class BatchLimits:
    """The most that is joined: rows, and bytes of the bodies that brought them."""

    rows: int
    bytes: int


def key_of(request: Predict, inputs: Rows) -> Hashable:
    """Return what must be equal for two requests to be predicted by one call."""
    return (inputs.joins_with(), request.probabilities)


def assemble(
    waiting: Sequence[Waiting], *, limits: BatchLimits, joined: bool
) -> tuple[list[Waiting], list[Waiting]]:
    """Choose the next batch: the oldest request, and those that may be joined with it.

    Args:
        waiting: Requests, oldest first; at least one.
        limits: Upper bounds of a batch; a single larger request goes alone.
        joined: Whether requests may be joined at all.

    Returns:
        The batch and the requests that go on waiting, both oldest first.
    """
    first = waiting[0]
    if not joined:
        return [first], list(waiting[1:])
    batch, rest, rows, size = [first], [], first.inputs.rows, first.body_bytes
    for candidate in waiting[1:]:
        more_rows, more_bytes = rows + candidate.inputs.rows, size + candidate.body_bytes
        fits = more_rows <= limits.rows and more_bytes <= limits.bytes
        if fits and candidate.key == first.key:
            batch.append(candidate)
            rows, size = more_rows, more_bytes
        else:
            rest.append(candidate)
    return batch, rest
