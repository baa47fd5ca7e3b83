"""Receive, join, predict, reply: one thread, no timer.

What queued while a batch was computed is the next batch.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.worker import memory
from gateway.worker.background import Background
from gateway.worker.batching import BatchLimits, Waiting, assemble, key_of
from gateway.worker.codecs import predict as codec
from gateway.worker.flavors import NotTakenError, pytorch
from gateway.worker.frames import MAX_BODY_BYTES, Frame, FrameReader, pack
from gateway.worker.inputs import join
from gateway.worker.loading import LoadedModel
from gateway.worker.messages import (
    KIND_OF,
    Alive,
    Failed,
    HeaderJson,
    Kind,
    Message,
    Predict,
    Proved,
    Reply,
    decode_header,
    encode_header,
)
from gateway.worker.proof import JOINED, PER_ROW
from gateway.worker.refusals import RequestRefusedError
from gateway.worker.served_model import Prediction, log_without_data

_READ_BYTES = 256 * 1024


class ConnectionEndedError(Exception):
    """The gateway is gone: nobody is left to answer."""


class Connection:
    """Frames on a blocking stream socket."""

    def __init__(self, channel: socket.socket) -> None:
        """Store the socket, which is blocking."""
        self._channel = channel
        self._reader = FrameReader()

    def receive(self, *, wait: bool) -> list[Frame]:
        """Return the frames that have arrived; with ``wait``, at least one.

        Raises:
            ConnectionEndedError: End of the stream, or an error on it.
        """
        frames: list[Frame] = []
        while True:
            block = wait and not frames
            try:
                data = self._channel.recv(_READ_BYTES, 0 if block else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return frames
            except OSError as error:
                raise ConnectionEndedError from error
            if not data:
                raise ConnectionEndedError
            frames += self._reader.feed(data)

    def receive_within(self, seconds: float) -> list[Frame]:
        """Return the frames that have arrived, or arrive in this time; none, if none do.

        A part of a frame does not count as a frame.

        Raises:
            ConnectionEndedError: End of the stream, or an error on it.
        """
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while not (frames := self.receive(wait=False)):
            left_s = until - time.monotonic()
            if left_s <= 0 or not poll.poll(math.ceil(left_s * 1000)):
                break
        return frames

    def send(
        self, answers: list[tuple[int, Message, bytes]], json: HeaderJson | None = None
    ) -> None:
        """Send messages with their ids and bodies, in one write where the kernel allows.

        Raises:
            ConnectionEndedError: The other end is closed.
        """
        pieces: list[bytes] = []
        for frame_id, message, body in answers:
            pieces += pack(KIND_OF[type(message)], frame_id, encode_header(message, json), body)
        try:
            self._channel.sendall(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except OSError as error:
            raise ConnectionEndedError from error


class ServingLoop:
    """Answers requests until STOP, or until the gateway is gone."""

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
        """Store what to serve with, and frames that came too early; ``run`` does the work."""
        self._received = list(received)
        self._connection = connection
        self._model = loaded.model
        self._json = loaded.model.json
        self._example = loaded.example
        self._memory = memory.Measuring(loaded.report.private_bytes)
        self._proof = loaded.proof
        self._background = loaded.background
        self._most_rows = limits.rows
        self._limits = limits
        self._join(loaded.report.batching, loaded.report.joined_rows)
        self._max_answer_bytes = max_answer_bytes
        self._clock = clock
        self._waiting: list[Waiting] = []
        self._stopping = False

    def run(self) -> None:
        """Serve. Returns after STOP, when all that was received before it has been answered.

        Raises:
            ConnectionEndedError: The gateway is gone.
        """
        for frame in self._received:
            self._take(frame)
        while not self._stopping or self._waiting:
            idle = not self._waiting and not self._stopping
            if idle and self._background is not None:
                self._await_or_prove(self._background)
                continue
            for frame in self._connection.receive(wait=idle):
                self._take(frame)
            if self._waiting:
                batch, self._waiting = assemble(
                    self._waiting, limits=self._limits, joined=self._joined
                )
                self._answer(batch)
                if self._background is not None and self._background.is_due:
                    self._prove(self._background)

    def _await_or_prove(self, background: Background) -> None:
        """Wait for a frame, and go on with the proof if none comes for a while."""
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
        self._join(self._proof.batching, self._proof.joined_rows)
        if background.over:
            self._background = None

    def _join(self, batching: str, rows: int) -> None:
        """Join from now on, or not, and never more rows than were proved together."""
        self._joined = batching == JOINED and rows > 1
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
            request = decode_header(Predict, frame.header, self._json)
            codec.check_content(request.content_type, request.content_encoding)
            inputs = self._model.decode(frame.body)
        except RequestRefusedError as refusal:
            self._connection.send([(frame.id, _failed(refusal), b"")])
            return
        except MemoryError:
            failed = Failed("model_error", "the worker has no memory left for the body")
            self._connection.send([(frame.id, failed, b"")])
            return
        except Exception as error:  # noqa: BLE001  # one body that we misread must not end the rest
            log_without_data(error)
            failed = Failed("invalid_input", "the body could not be read")
            self._connection.send([(frame.id, failed, b"")])
            return
        proved = self._proof.probabilities_joined or not request.probabilities
        key = key_of(request, inputs) if proved and self._model.is_proved(inputs) else frame.id
        self._waiting.append(Waiting(frame.id, request, inputs, now, len(frame.body), key))

    def _cancel(self, frame_id: int) -> None:
        left = [waiting for waiting in self._waiting if waiting.id != frame_id]
        if len(left) < len(self._waiting):
            self._waiting = left
            self._connection.send([(frame_id, Failed("cancelled", "nobody waits for it"), b"")])

    def _probe(self) -> Alive:
        message, began = "", self._clock()
        if self._example is not None:
            try:
                self._model.answer(self._example)
            except RequestRefusedError as refusal:
                message = refusal.message
            except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
                log_without_data(error)
                message = f"its answer could not be read: {type(error).__name__}"
        example_s = self._clock() - began
        return Alive(self._memory.latest(), not message, message, pytorch.gpu_bytes(), example_s)

    # --- answering --------------------------------------------------------------------------------

    def _answer(self, batch: list[Waiting]) -> None:
        """Predict a batch and send each its answer, those first that are too late to begin."""
        now = self._clock()
        late = [waiting for waiting in batch if waiting.request.deadline <= now]
        batch = [waiting for waiting in batch if waiting.request.deadline > now]
        refusal = RequestRefusedError("deadline_exceeded", "the deadline passed in the queue")
        answers: list[tuple[int, Message, bytes]] = [(w.id, _failed(refusal), b"") for w in late]
        if batch:
            answers += self._predict_safely(batch, now)
        if answers:
            self._connection.send(answers, self._json)

    def _predict(self, batch: list[Waiting], now: float) -> list[tuple[int, Message, bytes]]:
        try:
            prediction = self._model.predict(
                join([waiting.inputs for waiting in batch]),
                probabilities=batch[0].request.probabilities,
            )
            if prediction.divisible:
                return self._split(batch, prediction, now)
            if len(batch) == 1:
                self._answers_whole(batch[0], prediction)
                return self._split(batch, prediction, now)
        except RequestRefusedError as refusal:
            if len(batch) == 1:
                return [(batch[0].id, _failed(refusal), b"")]
        except NotTakenError:
            pass  # the call that was proved does not take all of them
        self._predict_each_alone(batch)
        return []

    def _answers_whole(self, waiting: Waiting, prediction: Prediction) -> None:
        """Join no more, if an answer is not one per row where that was proved.

        Which part of a joined one were whose could not be told.
        """
        if self._proof.answers == PER_ROW and self._model.is_proved(waiting.inputs):
            self._proof.answer_whole(f"an answer to {prediction.rows} rows was not one per row")
            self._background = None
            self._join(self._proof.batching, self._proof.joined_rows)
            self._connection.send([(0, Proved(self._proof.as_header()), b"")])

    def _predict_each_alone(self, batch: list[Waiting]) -> None:
        """One request's failure must not be another's: each is the next batch by itself.

        So each is answered as soon as it can be, its deadline is looked at again, and probes and
        cancellations are heard in between.
        """
        self._waiting = [waiting._replace(key=waiting.id) for waiting in batch] + self._waiting

    def _predict_safely(self, batch: list[Waiting], now: float) -> list[tuple[int, Message, bytes]]:
        """Predict; an answer that our own code cannot take apart must not end the rest."""
        try:
            return self._predict(batch, now)
        except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
            log_without_data(error)
            if len(batch) > 1:
                self._predict_each_alone(batch)
                return []
            told = f"the model's answer could not be read: {type(error).__name__}"
            return [(batch[0].id, Failed("model_error", told), b"")]

    def _split(
        self, batch: list[Waiting], prediction: Prediction, began: float
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
                answers.append((waiting.id, _failed(body), b""))
            elif len(body) > self._max_answer_bytes:
                told = f"the model's answer is larger than {self._max_answer_bytes} bytes"
                answers.append((waiting.id, Failed("model_error", told), b""))
            else:
                queued_s = began - waiting.received_at
                reply = Reply(codec.CONTENT_TYPE, count, queued_s, predict_s, rows)
                answers.append((waiting.id, reply, body))
        return answers


def _failed(refusal: RequestRefusedError) -> Failed:
    return Failed(refusal.code, refusal.message, refusal.as_lists())
