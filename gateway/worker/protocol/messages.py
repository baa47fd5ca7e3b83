"""Every message between gateway and worker, grouped by direction.

A message travels as a frame (`gateway.worker.protocol.frames`): the dataclass is the frame's JSON
header, the payload of a request or an answer is its raw body.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

PROTOCOL_VERSION = 4
MAX_TEXT = 4096
"""The most characters of a text in a message from a worker; the gateway refuses a longer one."""


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
        description: The control plane's description of the artifact: flavor, signature, example.
        threads: The threads that numerical libraries may use.
        max_batch_rows: The most rows joined into one batch.
        max_batch_bytes: The most bytes of request bodies joined into one batch.
        max_answer_bytes: The largest body of an answer; a larger one fails its request.
        interpreter: The path of the model's own Python, or None for the gateway's.
        memory_bytes: The most memory that the worker may add to what it starts with, or None.
        cuda_devices: The GPUs that the worker may use, as in ``CUDA_VISIBLE_DEVICES``, or ``all``;
            None for no GPU. Always None for a forked worker, which cannot use CUDA.
        not_finite: The treatment of NaN and infinity in an answer: ``null`` writes null,
            ``refuse`` fails the request.
        environment: The digest of the model's own environment, or empty if it has none.
        proof: The stored proof of this artifact (`gateway.worker.loading.proofs.proof`), or None.
        proof_budget_s: Seconds for the remaining proofs; 0 skips them.
        timeout_s: Seconds that one call of the model may take.
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
    """One request; the frame's body is the caller's body, unchanged. Answered once, by its id.

    Attributes:
        protocol: The codec that reads the body and writes the answer: ``predict``.
        deadline: The time at which the caller stops waiting, by ``CLOCK_MONOTONIC``, which all
            processes of a machine share.
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
    """Skip the request with this id unless it has begun. It is answered with FAILED."""


@dataclass(frozen=True)
class Probe:
    """Predict the input example and measure memory. Answered with ALIVE."""


@dataclass(frozen=True)
class Stop:
    """Answer the requests received so far, then end."""


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
    """The model is called for a proof, and for no request, until PROVED or LOADED follows.

    Attributes:
        proof: The proof to keep if the worker dies or hangs meanwhile; as in `Proved`.
    """

    proof: dict[str, Any]


@dataclass(frozen=True)
class Proved:
    """The proof so far. The worker has begun no request that was sent since PROVING.

    Attributes:
        proof: The fields of `gateway.worker.loading.proofs.proof.Proof`.
    """

    proof: dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """The artifact is verified, loaded and warmed; the worker accepts PREDICT.

    Attributes:
        private_bytes: Memory that ending this worker frees (``Private_Clean + Private_Dirty``).
        durations_s: Seconds by phase: ``verify``, ``load``, ``warm_up``.
        warm_up: ``passed``, or ``no_example`` if the artifact has neither an input example nor
            expected answers.
        expected_answers: The number of answers in ``warmup.jsonl``, all of which were met.
        batching: ``joined`` or ``alone``; ``batching_reason`` explains it.
        call_path: ``fast`` (the estimator on arrays) or ``pyfunc``; ``call_path_reason`` explains
            it.
        python: The version of the worker's interpreter.
        frameworks: The worker's versions of the frameworks that the description names.
        gpu_bytes: The GPU memory that the worker holds.
        peak_bytes: The most private memory that the worker held while it loaded and warmed up.
        answers: ``per_row``, ``whole`` or ``unknown``, as in `Proved`.
        joined_rows: The most rows that are joined into one call.
        proof: As in `Proved`.
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
            ``unavailable`` (a fault of the network, the disk or the like) or ``no_room`` (it needs
            more memory than a worker may take).
        message: The reason, as a sentence, without the artifact's data.
    """

    failure: str
    message: str


@dataclass(frozen=True)
class Reply:
    """The answer to a PREDICT; the frame's body is the finished body for the caller.

    The request's protocol determines its content type.

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
    """The error that answers a PREDICT.

    Attributes:
        code: ``unsupported_media_type``, ``invalid_input``, ``model_error``, ``not_finite``,
            ``deadline_exceeded`` or ``cancelled``.
        message: The message for the caller; never the caller's data, never a traceback.
        details: At most 20 lists ``[row or None, field or None, reason]``.
        begun: True if the model was called: only then the failure counts against the version.
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
        example_s: Seconds that the example took.
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
    """Return a text cut to `MAX_TEXT` characters, without lone surrogates."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


def encode_header(message: Message) -> bytes:
    """Return the JSON header of ``message``."""
    import orjson

    return orjson.dumps(vars(message))


def decode_header(message_type: type[M], header: bytes) -> M:
    """Return the message of a type that a header holds.

    Raises:
        ValueError: The header is not JSON, or does not have the fields of ``message_type``.
    """
    import orjson

    try:
        return message_type(**orjson.loads(header))
    except TypeError as error:
        raise ValueError(f"not a {message_type.__name__}: {error}") from error
