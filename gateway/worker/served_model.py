"""A loaded model of any flavor: validated inputs in, rows of JSON values out."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.worker.codecs import predict_json as codec
from gateway.worker.errors import MISFIT, RequestRefusedError, invalid, model_error
from gateway.worker.flavors import NotTakenError, classifiers, python_function
from gateway.worker.rows import outputs, values
from gateway.worker.rows.inputs import Form, Inputs, join
from gateway.worker.rows.plain_rows import Rows
from gateway.worker.rows.signature import Signature

Call = Callable[[Inputs], Any]


@dataclass
class ServedModel:
    """The model with which the serving loop predicts.

    Attributes:
        call: Predicts validated inputs: the pyfunc, or a fast path that was proved equal to it.
        probabilities_call: The same for class probabilities, or None if the model has none.
        class_names: As in `gateway.worker.flavors.classifiers.Probabilities`.
        no_probabilities: The reason why ``probabilities_call`` is None.
        nulls: Whether an answer has null for a number that is not finite; otherwise the request
            fails.
        proved_params: The params with which joining was proved.
        proved_form: The form of rows with which joining was proved, or None if it was not.
    """

    name: str
    version: int
    signature: Signature
    call: Call
    probabilities_call: Call | None = None
    class_names: list[Any] = field(default_factory=list)
    no_probabilities: str = "the model has no class probabilities"
    nulls: bool = True
    proved_params: dict[str, Any] = field(default_factory=dict)
    proved_form: Form | None = None

    def decode(self, body: bytes) -> Rows:
        """Return the validated rows of a body.

        Raises:
            RequestRefusedError: ``invalid_input``.
        """
        return codec.decode(body, self.signature)

    def is_proved(self, inputs: Rows) -> bool:
        """Whether rows have the form and the params for which joining was proved.

        Other rows may influence each other: those with other params, and those with nulls or a
        missing column, since a model may fill in missing values from the other rows.
        """
        form = self.proved_form
        return form is not None and inputs.params == self.proved_params and inputs.is_like(form)

    def predict(self, inputs: Inputs, *, probabilities: bool = False) -> Prediction:
        """Predict all rows by one call.

        Raises:
            NotTakenError: They are rows of several requests, which must be predicted alone.
            RequestRefusedError: The model raised, or has no probabilities.
        """
        if probabilities and self.probabilities_call is None:
            raise invalid(self.no_probabilities, (None, "probabilities", "the model has none"))
        # A model may change its input, and the second call needs it unchanged.
        output = self._guarded(self.call, inputs.copy() if probabilities else inputs)
        likely = None
        if self.probabilities_call is not None and probabilities:
            likely = self._guarded(self.probabilities_call, inputs)
        return Prediction(output, inputs.rows, likely)

    def encode(
        self, prediction: Prediction, counts: Sequence[int], *, predict_s: float
    ) -> list[bytes | RequestRefusedError]:
        """Return the answer or the error of each request of a batch, in order.

        ``counts`` are their numbers of rows; of several requests the prediction must be divisible.

        Raises:
            RequestRefusedError: ``model_error``: JSON cannot express a part of the prediction.
        """
        try:
            rows = outputs.to_json(prediction.output)
            likely = outputs.to_json(prediction.probabilities)
            names = classifiers.names_of(self.class_names, likely)
        except (TypeError, ValueError) as error:
            raise model_error("JSON cannot express the model's answer") from error
        envelope = codec.Envelope(
            model=self.name, version=self.version, predict_s=predict_s, nulls=self.nulls
        )
        answers: list[bytes | RequestRefusedError] = []
        start, alone = 0, len(counts) == 1
        for count in counts:
            own, own_likely = rows, likely
            if not alone:
                part = slice(start, start + count)
                own, own_likely = rows[part], likely and likely[part]
            extras = {"probabilities": own_likely, "class_names": names}
            try:
                answers.append(envelope.answer(own, {} if likely is None else extras))
            except RequestRefusedError as refusal:
                answers.append(refusal)
            start += count
        return answers

    def answer(self, body: bytes) -> tuple[bytes, Prediction]:
        """Answer one body as a request; return the answer and its prediction.

        Raises:
            RequestRefusedError: The body is invalid, or the model failed.
        """
        inputs = join([self.decode(body)])
        prediction = self.predict(inputs)
        answer = self.encode(prediction, [inputs.rows], predict_s=0.0)[0]
        if isinstance(answer, RequestRefusedError):
            raise answer
        if b"null" in answer and outputs.only_not_finite(prediction.output):
            raise model_error("the model's answer has only numbers that are not finite")
        return answer, prediction

    def _guarded(self, call: Call, inputs: Inputs) -> Any:
        try:
            return call(inputs)
        except NotTakenError:
            raise
        except BaseException as error:  # a model's SystemExit must not end the worker
            if python_function.refused_the_input(error):
                raise invalid(MISFIT, *values.misfits(self.signature, inputs)) from error
            log_without_data(error)
            raise model_error(f"the model raised {type(error).__name__}") from error


@dataclass(frozen=True)
class Prediction:
    """The result of one call of the model for a batch of ``rows`` rows.

    The output may belong to all rows together, as a forecast or the best three does.
    """

    output: Any
    rows: int
    probabilities: Any = None

    @property
    def divisible(self) -> bool:
        """Whether each row of the output belongs to one row of the input."""
        return outputs.row_count(self.output) == self.rows and (
            self.probabilities is None or outputs.row_count(self.probabilities) == self.rows
        )


def call_pyfunc(pyfunc: Any) -> Call:
    """Return the call of a ``PyFuncModel``, with DataFrames, as MLflow documents it."""

    def call(inputs: Inputs) -> Any:
        return pyfunc.predict(inputs.native(), params=inputs.params or None)

    return call


def log_without_data(error: BaseException) -> None:
    """Log the model's traceback without the message, which may hold the caller's data."""
    # A model may have closed the stream, or used all memory.
    with contextlib.suppress(Exception):
        frames = "".join(traceback.format_tb(error.__traceback__)[1:])
        sys.stderr.write(f"model error: {type(error).__name__}\n{frames}")
