"""Choose the requests of a batch. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.worker.protocol.messages import Predict
from gateway.worker.rows.inputs import Rows


class WaitingRequest(NamedTuple):
    """A validated request that waits for a batch.

    Attributes:
        id: The frame's id.
        request: The frame's header.
        inputs: The request's rows.
        received_at: ``time.monotonic()`` of the arrival.
        body_bytes: Size of the body.
        key: Requests may be joined if their keys are equal.
    """

    id: int
    request: Predict
    inputs: Rows
    received_at: float
    body_bytes: int
    key: Hashable


@dataclass(frozen=True)
class BatchLimits:
    """The most rows of a batch, and the most bytes of their bodies."""

    rows: int
    bytes: int


def key_of(request: Predict, inputs: Rows) -> Hashable:
    """Return the key of a request; requests with equal keys may share a call of the model."""
    return (inputs.joins_with(), request.probabilities)


def assemble(
    waiting: Sequence[WaitingRequest], *, limits: BatchLimits, joined: bool
) -> tuple[list[WaitingRequest], list[WaitingRequest]]:
    """Choose the next batch: the oldest request and the requests that may be joined with it.

    Args:
        waiting: Requests, oldest first; at least one.
        limits: Upper bounds of a batch; a single larger request goes alone.
        joined: Whether the model's requests may be joined.

    Returns:
        The batch and the remaining requests, both oldest first.
    """
    first = waiting[0]
    if not joined:
        return [first], list(waiting[1:])
    batch, remaining, rows, size = [first], [], first.inputs.rows, first.body_bytes
    for candidate in waiting[1:]:
        more_rows, more_bytes = rows + candidate.inputs.rows, size + candidate.body_bytes
        fits = more_rows <= limits.rows and more_bytes <= limits.bytes
        if fits and candidate.key == first.key:
            batch.append(candidate)
            rows, size = more_rows, more_bytes
        else:
            remaining.append(candidate)
    return batch, remaining
