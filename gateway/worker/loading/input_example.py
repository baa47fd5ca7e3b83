"""The logged input example through the path of a request. A failed example is a nack."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.worker.errors import RequestRefusedError
from gateway.worker.rows.inputs import Inputs, join
from gateway.worker.served_model import Prediction, ServedModel, log_without_data


class WarmUpFailedError(Exception):
    """The model does not answer its own example as it should. The message says how."""


@dataclass(frozen=True)
class Example:
    """The input example, as the model gets it, and what the model has answered.

    Attributes:
        seconds: How long the model took.
    """

    inputs: Inputs
    output: Any
    seconds: float


def predict_example(
    model: ServedModel, example: bytes, clock: Callable[[], float] = time.monotonic
) -> Example:
    """Answer the example as a request would be, by one call of the model.

    Raises:
        WarmUpFailedError: There is no answer, or no finite one.
    """
    began = clock()
    _, prediction = answer(model, example, "the input example")
    seconds = clock() - began
    # Anew: a model may change what it is given.
    return Example(join([model.decode(example)]), prediction.output, seconds)


def answer(model: ServedModel, body: bytes, what: str) -> tuple[bytes, Prediction]:
    """Answer a body as a request would be; return the answer, and what it was made of.

    Raises:
        WarmUpFailedError: There is no answer; says why, and that it was ``what``.
    """
    try:
        return model.answer(body)
    except RequestRefusedError as refusal:
        raise WarmUpFailedError(f"{what}: {_told(refusal)}") from refusal
    except Exception as error:  # whatever the model's objects raise
        log_without_data(error)
        told = f"the model's answer could not be read: {type(error).__name__}"
        raise WarmUpFailedError(f"{what}: {told}") from error


def _told(refusal: RequestRefusedError) -> str:
    """Say a refusal in one line, with the first places where the input is wrong."""
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
