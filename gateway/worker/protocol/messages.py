"""What gateway and worker say to each other: every message, grouped by direction.

Each travels as a frame (`gateway.worker.frames`): the dataclass is the frame's JSON header, a
request's or answer's payload its raw body. Standard library only: a worker may run under a model's
own interpreter, which has nothing of ours but this package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeVar

PROTOCOL_VERSION = 4
MAX_TEXT = 4096
"""Characters of any text in a message from a worker; the gateway believes no longer one."""


class Kind(IntEnum):
    """A frame's kind. Below 64: to the worker. From 64 on: from the worker."""

    LOAD = 1
    PREDICT = 2
    CANCEL = 3
    PROBE = 4
    STOP = 5
    HELLO = 64
    LOADED = 65
    LOAD_FAILED = 66
    REPLY = 67
    FAILED = 68
    ALIVE = 69
    WARMING = 70
    PROVING = 71
    PROVED = 72


# --- to the worker ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """Check the bytes of an artifact, load it, warm it. Sent once, first.

    Attributes:
        artifact: The artifact's folder.
        manifest: The file with the manifest that the folder must match.
        digest: ``sha256:…`` of that manifest.
        description: What the control plane found out about the artifact; see its ``describe``.
        threads: How many threads numerical libraries may use.
        max_batch_rows: The most rows joined into one batch.
        max_batch_bytes: The most bytes of bodies, as they came, that are joined into one batch.
        max_answer_bytes: The largest body of an answer; a larger one fails its request.
        interpreter: The model's own Python, under which the worker runs; None: the gateway's.
        memory_bytes: The most memory that the worker may take beyond what it starts with.
        cuda_devices: The GPUs that it may use, as in ``CUDA_VISIBLE_DEVICES``, or ``all``; None:
            none. Never told to a fork: CUDA cannot be used in one.
        not_finite: What becomes of a number in an answer that is not finite: ``null``, or
            ``refuse``: its request fails.
        environment: The digest of the model's own environment; empty: it has none.
        proof: What was proved before of this artifact, as `gateway.worker.proof` reads it; None:
            nothing is known.
        proof_budget_s: Seconds for what is not proved yet; 0: nothing is to be proved.
        timeout_s: Seconds that an answer of the model may take.
    """

    model: str
    version: int
    digest: str
    artifact: str
    manifest: str
    description: dict[str, Any]
    threads: int = 1
    max_batch_rows: int = 1024
    max_batch_bytes: int = 16 * 1024 * 1024
    max_answer_bytes: int = 64 * 1024 * 1024
    interpreter: str | None = None
    memory_bytes: int | None = None
    cuda_devices: str | None = None
    not_finite: str = "null"
    environment: str = ""
    proof: dict[str, Any] | None = None
    proof_budget_s: float = 3.0
    timeout_s: float = 30.0


@dataclass(frozen=True)
class Predict:
    """One request; the frame's body is the caller's body, untouched. Answered once, by its id.

    Attributes:
        protocol: Which codec reads the body and writes the answer: ``predict``.
        deadline: ``time.monotonic()`` (``CLOCK_MONOTONIC``, one clock for all processes of the
            machine) after which nobody waits for the answer.
        probabilities: Add ``probabilities`` and ``class_names`` to the answer.
    """

    protocol: str
    content_type: str
    deadline: float
    request_id: str
    content_encoding: str = ""
    probabilities: bool = False


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for this id any more: skip it unless it has begun. Still answered, as FAILED."""


@dataclass(frozen=True)
class Probe:
    """Predict the example, as a request would, and measure yourself. Answered with ALIVE."""


@dataclass(frozen=True)
class Stop:
    """Finish what has been received, then end."""


# --- from the worker ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """The first frame of a worker."""

    pid: int
    python: str
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class Warming:
    """The artifact is verified and loaded; its warm-up begins."""


@dataclass(frozen=True)
class Proving:
    """From now on the model is called for a proof, and not for a request, until PROVED or LOADED.

    Attributes:
        proof: What is to hold if the worker does not come back from it; as in `Proved`.
    """

    proof: dict[str, Any]


@dataclass(frozen=True)
class Proved:
    """What is proved now. Of no request that was sent since PROVING has the worker begun.

    Attributes:
        proof: As `gateway.worker.proof` reads it.
    """

    proof: dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """The artifact is verified, loaded and warmed; PREDICT frames may come.

    Attributes:
        private_bytes: Memory that ending this worker frees (``Private_Clean + Private_Dirty``).
        durations_s: Seconds by phase: ``verify``, ``load``, ``warm_up``.
        warm_up: ``passed``, or ``no_example``: the artifact has neither an input example nor
            expected answers.
        expected_answers: How many answers of the artifact's ``warmup.jsonl`` were as expected.
        batching: Whether requests may be joined: ``joined``, or ``alone`` because of ``…_reason``.
        call_path: ``fast`` (the estimator on arrays) or ``pyfunc``, because of ``…_reason``.
        python: The version of the worker's interpreter.
        frameworks: What the worker has of the frameworks that the description names, by version.
        gpu_bytes: Memory of GPUs that it holds.
        peak_bytes: The most private memory that it held until now, while it loaded and warmed up.
        answers: ``per_row``, ``whole`` or ``unknown``, as in `gateway.worker.proof.Proof`.
        joined_rows: The most rows that are joined into one call.
        proof: All that was proved; as in `Proved`.
    """

    private_bytes: int
    durations_s: dict[str, float]
    warm_up: str
    batching: str
    batching_reason: str
    call_path: str
    call_path_reason: str
    python: str = ""
    frameworks: dict[str, str] = field(default_factory=dict)
    peak_bytes: int = 0
    gpu_bytes: int = 0
    expected_answers: int = 0
    answers: str = "unknown"
    joined_rows: int = 1
    proof: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadFailed:
    """The artifact cannot be served; the worker ends.

    Attributes:
        failure: ``integrity``, ``unsupported``, ``load_failed``, ``warm_up_failed``,
            ``unavailable``: the network, the disk or the like failed it, or ``no_room``: it needs
            more memory than a worker may take.
        message: Why, as a sentence, without the artifact's data.
    """

    failure: str
    message: str


@dataclass(frozen=True)
class Reply:
    """The answer to a PREDICT; the frame's body is the finished body for the caller.

    Which content type it has the gateway knows, by the protocol that it asked for.

    Attributes:
        queued_s: Seconds from the frame's arrival in the worker to the start of its batch.
        predict_s: Seconds of the batch's ``predict``.
        batch_rows: Rows of the whole batch.
    """

    rows: int
    queued_s: float
    predict_s: float
    batch_rows: int


@dataclass(frozen=True)
class Failed:
    """A PREDICT that has no answer.

    Attributes:
        code: ``unsupported_media_type``, ``invalid_input``, ``model_error``, ``not_finite``,
            ``deadline_exceeded`` or ``cancelled``.
        message: What to tell the caller; never the caller's data, never a traceback.
        details: ``[row or None, field or None, reason]``, at most 20 of them.
        begun: Whether the model was called for it: only then it says something of the version.
    """

    code: str
    message: str
    details: list[list[Any]] = field(default_factory=list)
    begun: bool = False


@dataclass(frozen=True)
class Alive:
    """The answer to a PROBE.

    Attributes:
        private_bytes: As in `Loaded`.
        gpu_bytes: As in `Loaded`.
        example_s: How long its example took, without what was before it.
    """

    private_bytes: int
    example_ok: bool
    message: str = ""
    gpu_bytes: int = 0
    example_s: float = 0.0


Message = (
    Load
    | Predict
    | Cancel
    | Probe
    | Stop
    | Hello
    | Warming
    | Proving
    | Proved
    | Loaded
    | LoadFailed
    | Reply
    | Failed
    | Alive
)
M = TypeVar("M")

KIND_OF: dict[type[Any], Kind] = {
    Load: Kind.LOAD,
    Predict: Kind.PREDICT,
    Cancel: Kind.CANCEL,
    Probe: Kind.PROBE,
    Stop: Kind.STOP,
    Hello: Kind.HELLO,
    Warming: Kind.WARMING,
    Proving: Kind.PROVING,
    Proved: Kind.PROVED,
    Loaded: Kind.LOADED,
    LoadFailed: Kind.LOAD_FAILED,
    Reply: Kind.REPLY,
    Failed: Kind.FAILED,
    Alive: Kind.ALIVE,
}


def bounded(text: str) -> str:
    """Return a text as a message may hold it: foreign names are in it, of any length."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class HeaderJson(Protocol):
    """What reads and writes headers, if it is not the standard library."""

    def loads(self, body: bytes) -> Any:
        """Return the value; raise ValueError if there is none."""
        ...

    def dumps(self, value: Any) -> bytes:
        """Return the JSON."""
        ...


def encode_header(message: Message, faster: HeaderJson | None = None) -> bytes:
    """Return the JSON header of ``message``; with ``faster``, where there is something faster."""
    return faster.dumps(vars(message)) if faster else _encode(vars(message)).encode()


def decode_header(message_type: type[M], header: bytes, faster: HeaderJson | None = None) -> M:
    """Read a header as ``message_type``; with ``faster``, where there is something faster.

    Raises:
        ValueError: Not JSON, or not the fields of ``message_type``.
    """
    try:
        return message_type(**(faster or json).loads(header))
    except TypeError as error:
        raise ValueError(f"not a {message_type.__name__}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"not a {message_type.__name__}: it is nested too deep") from error
