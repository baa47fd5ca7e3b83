"""Predict the logged input example as a request would be. A failure is a nack."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.worker.errors import RequestRefusedError
from gateway.worker.rows.inputs import Inputs, join
from gateway.worker.served_model import Prediction, ServedModel, log_without_data


class WarmUpFailedError(Exception):
    """The model failed its own example or expected answers. The message says how."""


@dataclass(frozen=True)
class Example:
    """The input example as the model gets it, and the model's answer.

    Attributes:
        seconds: Seconds that the model took.
    """

    inputs: Inputs
    output: Any
    seconds: float


def predict_example(
    model: ServedModel, example: bytes, clock: Callable[[], float] = time.monotonic
) -> Example:
    """Answer the example as a request would be, by one call of the model.

    Raises:
        WarmUpFailedError: The model fails, or its answer has no finite number.
    """
    began = clock()
    _, prediction = answer(model, example, "the input example")
    seconds = clock() - began
    # Decode again: a model may change its input.
    return Example(join([model.decode(example)]), prediction.output, seconds)


def answer(model: ServedModel, body: bytes, what: str) -> tuple[bytes, Prediction]:
    """Return the answer to a body, as for a request, and the prediction in it.

    Raises:
        WarmUpFailedError: The model fails; the message names ``what`` and the cause.
    """
    try:
        return model.answer(body)
    except RequestRefusedError as refusal:
        raise WarmUpFailedError(f"{what}: {_as_line(refusal)}") from refusal
    except Exception as error:  # the model's objects may raise anything
        log_without_data(error)
        reason = f"the model's answer could not be read: {type(error).__name__}"
        raise WarmUpFailedError(f"{what}: {reason}") from error


def _as_line(refusal: RequestRefusedError) -> str:
    """Return a refusal as one line, with its first three details."""
    where = "; ".join(
        ", ".join(
            [
                *([f"row {row}"] if row is not None else []),
                *([f"field {field!r}"] if field is not None else []),
                reason,
            ]
        )
        for row, field, reason in refusal.details[:3]
    )
    return f"{refusal.message} ({where})" if where else refusal.message
