"""Reads the messages of workers, and checks them as strictly as a caller's input.

Types, ranges, sizes and words of every field are checked here, and nowhere else. An invalid message
ends its worker. orjson refuses numbers that are not finite and broken text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from gateway.errors import (
    DeadlineExceededError,
    GatewayError,
    InvalidInputError,
    MediaTypeError,
    ModelRaisedError,
    NotFiniteAnswerError,
)
from gateway.worker.errors import MAX_DETAILS
from gateway.worker.loading.proofs.proof import (
    ALONE,
    FAST,
    JOINED,
    PER_ROW,
    PYFUNC,
    UNKNOWN,
    WHOLE,
    Proof,
    parse,
)
from gateway.worker.protocol.messages import MAX_TEXT, Alive, Failed, Hello, Loaded, LoadFailed

MAX_HEADER_BYTES = 256 * 1024
"""The largest header of a frame from a worker: many times the longest valid one."""
_MAX_ITEMS = 256
_MAX_BYTES = 2**48
"""The most bytes of memory in a message: more than any machine has."""
_MAX_ROWS = 2**40
_MAX_SECONDS = 1e7
_MAX_VERSION = 2**31

Fits = Callable[[Any], bool]
M = TypeVar("M")


class InvalidMessageError(ValueError):
    """A worker's message is invalid. The text names the fault, without the data."""


# --- replies: read by hand, once for every request ----------------------------------------------


def read_reply(header: bytes) -> tuple[int, float, float, int]:
    """Return rows, seconds in the queue, seconds of the call, and rows of the batch of a REPLY.

    Raises:
        InvalidMessageError: A field is missing, unknown or out of range.
    """
    fields = _loads(header)
    try:
        rows, queued_s = fields["rows"], fields["queued_s"]
        predict_s, batch_rows = fields["predict_s"], fields["batch_rows"]
    except (KeyError, TypeError) as error:
        raise InvalidMessageError("an answer lacks a field") from error
    if len(fields) == _REPLY_FIELDS and (  # one test per field, on the hot path
        type(rows) is int
        and type(batch_rows) is int
        and type(queued_s) in _NUMBERS
        and type(predict_s) in _NUMBERS
        and 0 <= rows <= _MAX_ROWS
        and 0 <= batch_rows <= _MAX_ROWS
        and 0 <= queued_s <= _MAX_SECONDS
        and 0 <= predict_s <= _MAX_SECONDS
    ):
        return rows, queued_s, predict_s, batch_rows
    raise InvalidMessageError("a field of an answer is unknown or out of range")


_REPLY_FIELDS = 4
_NUMBERS = frozenset({int, float})


def read_failed(header: bytes) -> GatewayError:
    """Return the error of a FAILED.

    Raises:
        InvalidMessageError: A field is missing, unknown or out of range.
    """
    failed = read_message(Failed, header)
    match failed.code:
        case "invalid_input":
            return InvalidInputError(failed.message, failed.details)
        case "not_finite":
            return NotFiniteAnswerError(failed.message, failed.details)
        case "unsupported_media_type":
            return MediaTypeError(failed.message)
        case "deadline_exceeded" | "cancelled":
            return DeadlineExceededError(failed.message)
        case _:
            return ModelRaisedError(failed.message, begun=failed.begun)


# --- all other messages --------------------------------------------------------------------------


def read_proof(header: bytes) -> Proof | None:
    """Return the proof in a PROVING or PROVED, or None if its format or a bound is unknown here.

    Raises:
        InvalidMessageError: The only field is not an object ``proof``.
    """
    fields = _loads(header)
    if type(fields) is not dict or fields.keys() != {"proof"}:
        raise InvalidMessageError("a message about a proof must have one field, 'proof'")
    if not _is_object(fields["proof"]):
        raise InvalidMessageError("a proof must be an object")
    return parse(fields["proof"])


def read_message(message_type: type[M], header: bytes) -> M:
    """Return a message of another type, after checking every field.

    Raises:
        InvalidMessageError: A field is missing, unknown or out of range.
    """
    fields = _loads(header)
    if type(fields) is not dict:
        raise InvalidMessageError(f"a {message_type.__name__} must be an object")
    rules = _RULES[message_type]
    if unknown := fields.keys() - rules.keys():
        raise InvalidMessageError(f"a {message_type.__name__} has {len(unknown)} unknown fields")
    for name, value in fields.items():
        if not rules[name](value):
            raise InvalidMessageError(
                f"{name} of a {message_type.__name__} has a wrong type or value"
            )
    try:
        return message_type(**fields)
    except TypeError as error:
        raise InvalidMessageError(f"a {message_type.__name__} lacks a field") from error


def _loads(header: bytes) -> Any:
    try:
        return orjson.loads(header)
    except ValueError as error:
        raise InvalidMessageError("a header is not JSON") from error


# --- the rules ----------------------------------------------------------------------------------


def _up_to(most: int) -> Fits:
    return lambda value: type(value) is int and 0 <= value <= most


def _one_of(*words: str) -> Fits:
    known = frozenset(words)
    return lambda value: type(value) is str and value in known


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_seconds(value: Any) -> bool:
    return type(value) in _NUMBERS and 0 <= value <= _MAX_SECONDS


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_TEXT


def _is_object(value: Any) -> bool:
    return type(value) is dict and len(value) <= _MAX_ITEMS and all(map(_is_text, value))


def _object_of(fits: Fits) -> Fits:
    return lambda value: _is_object(value) and all(map(fits, value.values()))


def _is_details(value: Any) -> bool:
    return type(value) is list and len(value) <= MAX_DETAILS and all(map(_is_detail, value))


def _is_detail(value: Any) -> bool:
    if type(value) is not list or len(value) != _DETAIL_PARTS:
        return False
    row, field, reason = value
    return (
        (row is None or (type(row) is int and 0 <= row <= _MAX_ROWS))
        and (field is None or _is_text(field))
        and _is_text(reason)
    )


_DETAIL_PARTS = 3
_RULES: dict[type[Any], dict[str, Fits]] = {
    Hello: {
        "pid": _up_to(_MAX_VERSION),
        "python": _is_text,
        "protocol_version": _up_to(_MAX_VERSION),
    },
    Loaded: {
        "private_bytes": _up_to(_MAX_BYTES),
        "durations_s": _object_of(_is_seconds),
        "warm_up": _one_of("passed", "no_example"),
        "batching": _one_of(JOINED, ALONE),
        "batching_reason": _is_text,
        "call_path": _one_of(FAST, PYFUNC),
        "call_path_reason": _is_text,
        "python": _is_text,
        "frameworks": _object_of(_is_text),
        "peak_bytes": _up_to(_MAX_BYTES),
        "gpu_bytes": _up_to(_MAX_BYTES),
        "expected_answers": _up_to(_MAX_ROWS),
        "answers": _one_of(PER_ROW, WHOLE, UNKNOWN),
        "joined_rows": _up_to(_MAX_ROWS),
        "proof": _is_object,
    },
    LoadFailed: {
        "failure": _one_of(
            "integrity", "unsupported", "load_failed", "warm_up_failed", "unavailable", "no_room"
        ),
        "message": _is_text,
    },
    Failed: {
        "code": _one_of(
            "unsupported_media_type",
            "invalid_input",
            "model_error",
            "not_finite",
            "deadline_exceeded",
            "cancelled",
        ),
        "message": _is_text,
        "details": _is_details,
        "begun": _is_flag,
    },
    Alive: {
        "private_bytes": _up_to(_MAX_BYTES),
        "example_ok": _is_flag,
        "message": _is_text,
        "gpu_bytes": _up_to(_MAX_BYTES),
        "example_s": _is_seconds,
    },
}
"""The rule of each field. A field without a rule is refused."""
