"""A loaded model: inputs in, rows of JSON values out, whatever the model is made of."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.worker.codecs import predict_json as codec
from gateway.worker.errors import RequestRefusedError, invalid, model_error
from gateway.worker.flavors import NotTakenError, classifiers, python_function
from gateway.worker.rows import outputs, values
from gateway.worker.rows.inputs import Form, Inputs, Rows, join
from gateway.worker.rows.signature import MISFIT, Signature

Call = Callable[[Inputs], Any]


@dataclass
class ServedModel:
    """What the serving loop predicts with.

    Attributes:
        call: Predicts validated inputs: the pyfunc, or a fast path that was proved equal to it.
        probabilities_call: The same for class probabilities; None where the model has none.
        class_names: As in `gateway.worker.flavors.classifiers.Probabilities`.
        no_probabilities: Why there is no ``probabilities_call``.
        nulls: Whether null stands in an answer for a number that is not finite; if not, its
            request is refused.
        proved_params: With which params it was proved that rows may be joined.
        proved_form: Of which rows that was proved; None: of none.
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
        """Whether rows are of the form and have the params for which joining was proved.

        Rows of other params may influence each other where these do not, and so may rows with
        nulls, or without a column: a model may fill in what is missing from the other rows.
        """
        form = self.proved_form
        return form is not None and inputs.params == self.proved_params and inputs.is_like(form)

    def predict(self, inputs: Inputs, *, probabilities: bool = False) -> Prediction:
        """Predict all rows by one call.

        Raises:
            NotTakenError: They are rows of several requests, which are to be answered alone.
            RequestRefusedError: The model raised, or has no probabilities.
        """
        if probabilities and self.probabilities_call is None:
            raise invalid(self.no_probabilities, (None, "probabilities", "the model has none"))
        # A model may change what it is given, and the second call is to see what came.
        output = self._guarded(self.call, inputs.copy() if probabilities else inputs)
        likely = None
        if self.probabilities_call is not None and probabilities:
            likely = self._guarded(self.probabilities_call, inputs)
        return Prediction(output, inputs.rows, likely)

    def encode(
        self, prediction: Prediction, counts: Sequence[int], *, predict_s: float
    ) -> list[bytes | RequestRefusedError]:
        """Return an answer, or why there is none, for each request of a batch in its order.

        Args:
            prediction: What the model answered to all of them; divisible, if they are several.
            counts: The rows of each.
            predict_s: Seconds that it took.

        Raises:
            RequestRefusedError: ``model_error``: a part of it has no spelling in JSON.
        """
        try:
            rows = outputs.to_json(prediction.output)
            likely = outputs.to_json(prediction.probabilities)
            names = classifiers.names_of(self.class_names, likely)
        except (TypeError, ValueError) as error:
            raise model_error("the model's answer has no spelling in JSON") from error
        envelope = codec.Envelope(
            model=self.name,
            version=self.version,
            predict_s=predict_s,
            nulls=self.nulls,
        )
        answers: list[bytes | RequestRefusedError] = []
        start, alone = 0, len(counts) == 1
        for count in counts:
            part = slice(start, start + count)
            extras: dict[str, Any] = {}
            if likely is not None:
                extras = {
                    "probabilities": likely if alone else likely[part],
                    "class_names": names,
                }
            try:
                answers.append(envelope.answer(rows if alone else rows[part], extras))
            except RequestRefusedError as refusal:
                answers.append(refusal)
            start += count
        return answers

    def answer(self, body: bytes) -> tuple[bytes, Prediction]:
        """Take one body through the whole path of a request; return its answer.

        With it comes what the model predicted, of which the answer was made.

        Raises:
            RequestRefusedError: It has no answer.
        """
        inputs = join([self.decode(body)])
        prediction = self.predict(inputs)
        answer = self.encode(prediction, [inputs.rows], predict_s=0.0)[0]
        if isinstance(answer, RequestRefusedError):
            raise answer
        if b"null" in answer and outputs.only_not_finite(prediction.output):
            raise model_error("the model's answer holds nothing but numbers that are not finite")
        return answer, prediction

    def _guarded(self, call: Call, inputs: Inputs) -> Any:
        try:
            return call(inputs)
        except NotTakenError:
            raise
        except BaseException as error:  # a model may raise SystemExit too, and must not end us
            if python_function.refused_the_input(error):
                raise invalid(MISFIT, *values.misfits(self.signature, inputs)) from error
            log_without_data(error)
            raise model_error(f"the model raised {type(error).__name__}") from error


@dataclass(frozen=True)
class Prediction:
    """The result of one call of the model for a batch of ``rows`` rows.

    It may belong to all of them together: a forecast, the best three, a number.
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
    """Write where the model failed, without the message: that may hold the caller's data."""
    # A model may have closed the stream, or left no memory to say anything.
    with contextlib.suppress(Exception):
        frames = "".join(traceback.format_tb(error.__traceback__)[1:])
        sys.stderr.write(f"model error: {type(error).__name__}\n{frames}")
