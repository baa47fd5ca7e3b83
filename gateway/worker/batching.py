"""Choose the requests of a batch. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.worker.protocol.messages import Predict
from gateway.worker.rows.plain_rows import Rows


class WaitingRequest(NamedTuple):
    """A validated request that waits for a batch.

    Attributes:
        request: The frame's header.
        received_at: ``time.monotonic()`` of the arrival.
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
    """Return the next batch and the remaining requests, all oldest first.

    The batch has the oldest request and, if the model's requests may be ``joined``, those that fit
    it within the limits; a single larger request goes alone.
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
