"""Receive, join, predict, reply: one thread, no timer.

The requests that queued during a batch form the next batch. A large body may take a second to
decode, so it is decoded only when it is next, and alone; small requests then go first for a while.
So large bodies delay other callers by at most the time of one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from gateway.worker.batching import BatchLimits, WaitingRequest, assemble, key_of
from gateway.worker.codecs import predict_json as codec
from gateway.worker.errors import RequestRefusedError
from gateway.worker.flavors import NotTakenError, pytorch
from gateway.worker.loading.load import LoadedModel
from gateway.worker.loading.proofs.background import Background
from gateway.worker.loading.proofs.proof import JOINED, PER_ROW
from gateway.worker.process import memory
from gateway.worker.protocol.connection import Connection
from gateway.worker.protocol.frames import MAX_BODY_BYTES, Frame
from gateway.worker.protocol.messages import (
    Alive,
    Failed,
    Kind,
    Message,
    Predict,
    Proved,
    Reply,
    bounded,
    decode_header,
)
from gateway.worker.rows.inputs import join
from gateway.worker.served_model import Prediction, log_without_data

_LARGE_BYTES = 64 * 1024
"""A larger body is decoded when it is next; a smaller one, in a millisecond, on arrival."""
_SMALL_FIRST_S = 1.0
"""Small requests go before the next large body for this long, or as long as the last one took."""


class ServingLoop:
    """Answers requests until STOP, or until the gateway has ended.

    ``received`` are frames that arrived together with LOAD.
    """

    def __init__(
        self,
        connection: Connection,
        loaded: LoadedModel,
        limits: BatchLimits,
        received: Sequence[Frame] = (),
        clock: Callable[[], float] = time.monotonic,
        *,
        max_answer_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._received = list(received)
        self._connection = connection
        self._model = loaded.model
        self._example = loaded.example
        self._memory = memory.MemoryWatch(loaded.report.private_bytes)
        self._proof = loaded.proof
        self._background = loaded.background
        self._most_rows = limits.rows
        self._limits = limits
        self._join()
        self._max_answer_bytes = max_answer_bytes
        self._clock = clock
        self._waiting: list[WaitingRequest] = []
        self._large: deque[_Large] = deque()
        self._small_first_until = 0.0
        self._stopping = False

    def run(self) -> None:
        """Serve. Returns after STOP, once all requests received before it are answered.

        Raises:
            ConnectionEndedError: The gateway has ended.
        """
        for frame in self._received:
            self._take(frame)
        while not self._stopping or self._waiting or self._large:
            idle = not self._waiting and not self._large and not self._stopping
            if idle and self._background is not None:
                self._await_or_prove(self._background)
                continue
            for frame in self._connection.receive(wait=idle):
                self._take(frame)
            if self._waiting or self._large:
                self._answer_next()
                if self._background is not None and self._background.is_due:
                    self._prove(self._background)

    def _answer_next(self) -> None:
        if self._is_turn_of_large():
            left_s = self._small_first_until - self._clock()
            if left_s > 0 and self._connection.is_receiving:  # small requests may follow it
                for frame in self._connection.receive_within(left_s):
                    self._take(frame)
                return
            self._answer_large(self._large.popleft())
        else:
            batch, self._waiting = assemble(self._waiting, limits=self._limits, joined=self._joined)
            self._answer(batch)

    def _is_turn_of_large(self) -> bool:
        """Whether a large body is next: it is the oldest request, and small ones had their time."""
        if not self._large or not self._waiting:
            return bool(self._large)
        is_oldest = self._large[0].id < self._waiting[0].id
        return is_oldest and self._clock() >= self._small_first_until

    def _answer_large(self, large: _Large) -> None:
        began = self._clock()
        if large.request.deadline <= began:
            self._connection.send([(large.id, _TOO_LATE, b"")])
            return
        waiting = self._read(large.id, large.request, large.body, large.received_at)
        if waiting is not None:
            self._answer([waiting._replace(key=large.id)])
        ended = self._clock()
        self._small_first_until = ended + min(ended - began, _SMALL_FIRST_S)

    def _await_or_prove(self, background: Background) -> None:
        """Wait for a frame; continue the proof if no frame arrives within its pause."""
        pause_s = background.pause_s
        if pause_s is None:
            frames = self._connection.receive(wait=True)
        else:
            frames = self._connection.receive_within(pause_s)
            if not frames:
                self._prove(background)
        for frame in frames:
            self._take(frame)

    def _prove(self, background: Background) -> None:
        background.step()
        self._join()
        if background.over:
            self._background = None

    def _join(self) -> None:
        """Set whether requests are joined, and limit a batch to the proved number of rows."""
        rows = self._proof.joined_rows
        self._joined = self._proof.batching == JOINED and rows > 1
        self._limits = replace(self._limits, rows=min(self._most_rows, rows))

    # --- taking frames ----------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.PREDICT:
            self._take_request(frame)
        elif frame.kind == Kind.CANCEL:
            self._cancel(frame.id)
        elif frame.kind == Kind.PROBE:
            self._connection.send([(frame.id, self._probe(), b"")])
        elif frame.kind == Kind.STOP:
            self._stopping = True

    def _take_request(self, frame: Frame) -> None:
        now = self._clock()
        try:
            request = decode_header(Predict, frame.header)
            codec.check_content(request.content_type, request.content_encoding)
        except RequestRefusedError as refusal:
            self._connection.send([(frame.id, _failed(refusal), b"")])
            return
        if len(frame.body) > _LARGE_BYTES:
            self._large.append(_Large(frame.id, request, frame.body, now))
            return
        waiting = self._read(frame.id, request, frame.body, now)
        if waiting is not None:
            self._waiting.append(waiting)

    def _read(
        self, frame_id: int, request: Predict, body: bytes, received_at: float
    ) -> WaitingRequest | None:
        """Return a decoded request, or None if it was answered with an error."""
        try:
            inputs = self._model.decode(body)
        except RequestRefusedError as refusal:
            failed = _failed(refusal)
        except MemoryError:
            failed = _NO_MEMORY
        except Exception as error:  # noqa: BLE001  # an error of the codec must not end the worker
            log_without_data(error)
            failed = Failed("invalid_input", "the body could not be read")
        else:
            proved = self._proof.probabilities_joined or not request.probabilities
            key = key_of(request, inputs) if proved and self._model.is_proved(inputs) else frame_id
            return WaitingRequest(frame_id, request, inputs, received_at, len(body), key)
        self._connection.send([(frame_id, failed, b"")])
        return None

    def _cancel(self, frame_id: int) -> None:
        """Skip a request that has not begun."""
        left = [waiting for waiting in self._waiting if waiting.id != frame_id]
        large = deque(one for one in self._large if one.id != frame_id)
        if len(left) + len(large) < len(self._waiting) + len(self._large):
            self._waiting, self._large = left, large
            self._connection.send([(frame_id, Failed("cancelled", "the caller has left"), b"")])

    def _probe(self) -> Alive:
        message, began = "", self._clock()
        if self._example is not None:
            try:
                self._model.answer(self._example)
            except RequestRefusedError as refusal:
                message = refusal.message
            except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
                log_without_data(error)
                message = bounded(f"its answer could not be read: {type(error).__name__}")
        example_s = self._clock() - began
        return Alive(self._memory.latest(), not message, message, pytorch.gpu_bytes(), example_s)

    # --- answering --------------------------------------------------------------------------------

    def _answer(self, batch: list[WaitingRequest]) -> None:
        """Predict a batch and send the answers; requests past their deadline fail first."""
        now = self._clock()
        late = [waiting for waiting in batch if waiting.request.deadline <= now]
        batch = [waiting for waiting in batch if waiting.request.deadline > now]
        answers: list[tuple[int, Message, bytes]] = [(w.id, _TOO_LATE, b"") for w in late]
        if batch:
            answers += self._predict(batch, now)
        if answers:
            self._connection.send(answers)

    def _predict(self, batch: list[WaitingRequest], now: float) -> list[tuple[int, Message, bytes]]:
        """Predict; a failure fails its request, not the worker."""
        failed = _NOT_TAKEN
        try:
            try:
                inputs = join([waiting.inputs for waiting in batch])
            except MemoryError as error:
                raise _NoRoomError from error
            prediction = self._model.predict(inputs, probabilities=batch[0].request.probabilities)
            divisible = prediction.divisible
            if not divisible and len(batch) == 1:
                self._answers_whole(batch[0], prediction)
            if divisible or len(batch) == 1:
                return self._split(batch, prediction, now)
        except _NoRoomError:
            failed = _NO_MEMORY
        except RequestRefusedError as refusal:
            failed = _failed(refusal, begun=True)
        except NotTakenError:
            pass  # the proved call cannot take all of these rows
        except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
            log_without_data(error)
            reason = f"the model's answer could not be read: {type(error).__name__}"
            failed = Failed("model_error", bounded(reason), begun=True)
        if len(batch) == 1:
            return [(batch[0].id, failed, b"")]
        # Each alone, so that one request's failure does not fail the others. In between, deadlines
        # are checked again, and probes and cancellations are received.
        self._waiting = [waiting._replace(key=waiting.id) for waiting in batch] + self._waiting
        return []

    def _answers_whole(self, waiting: WaitingRequest, prediction: Prediction) -> None:
        """Stop joining if an answer has not one item per row, although that was proved.

        A joined answer could not be divided among its requests.
        """
        if self._proof.answers == PER_ROW and self._model.is_proved(waiting.inputs):
            self._proof.answer_whole(f"an answer to {prediction.rows} rows was not one per row")
            self._background = None
            self._join()
            self._connection.send([(0, Proved(self._proof.as_header()), b"")])

    def _split(
        self, batch: list[WaitingRequest], prediction: Prediction, began: float
    ) -> list[tuple[int, Message, bytes]]:
        predict_s = self._clock() - began
        counts = [waiting.inputs.rows for waiting in batch]
        rows = sum(counts)
        if self._background is not None:
            self._background.saw(rows, predict_s)
        answers: list[tuple[int, Message, bytes]] = []
        bodies = self._model.encode(prediction, counts, predict_s=predict_s)
        for waiting, count, body in zip(batch, counts, bodies, strict=True):
            if isinstance(body, RequestRefusedError):
                answers.append((waiting.id, _failed(body, begun=True), b""))
            elif len(body) > self._max_answer_bytes:
                reason = f"the model's answer is larger than {self._max_answer_bytes} bytes"
                answers.append((waiting.id, Failed("model_error", reason, begun=True), b""))
            else:
                queued_s = began - waiting.received_at
                reply = Reply(count, queued_s, predict_s, rows)
                answers.append((waiting.id, reply, body))
        return answers


class _NoRoomError(Exception):
    """Memory does not suffice to join a batch; the model was not called."""


class _Large(NamedTuple):
    """A request with a large body that has not been read.

    Attributes:
        received_at: ``time.monotonic()`` of its arrival.
    """

    id: int
    request: Predict
    body: bytes
    received_at: float


_TOO_LATE = Failed("deadline_exceeded", "the deadline passed in the queue")
_NOT_TAKEN = Failed("model_error", "the model's proved call does not take the rows", begun=True)
_NO_MEMORY = Failed("model_error", "the worker has no memory left for the body")


def _failed(refusal: RequestRefusedError, *, begun: bool = False) -> Failed:
    return Failed(refusal.code, refusal.message, refusal.as_lists(), begun)
