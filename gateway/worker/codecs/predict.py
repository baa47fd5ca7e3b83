"""Our own protocol: JSON bodies in any of five shapes, JSON answers with an envelope."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gateway.worker import signature as rules
from gateway.worker.codecs.strict_json import InvalidJsonError, Json
from gateway.worker.inputs import Rows
from gateway.worker.refusals import RequestRefusedError, invalid, model_error
from gateway.worker.signature import Signature

CONTENT_TYPE = "application/json"
SELECTORS = ("instances", "inputs", "dataframe_split", "dataframe_records", "features")


@lru_cache(maxsize=64)  # callers of one model send the same, again and again
def check_content(content_type: str, content_encoding: str) -> None:
    """Refuse any body but JSON in UTF-8 that is not compressed.

    Raises:
        RequestRefusedError: ``unsupported_media_type``.
    """
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media != CONTENT_TYPE:
        raise RequestRefusedError("unsupported_media_type", f"the body must be {CONTENT_TYPE}")
    if any(parameter.replace('"', "") not in {"", "charset=utf-8"} for parameter in parameters):
        raise RequestRefusedError("unsupported_media_type", "the body must be UTF-8")
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise RequestRefusedError("unsupported_media_type", "the body must not be compressed")


def decode(body: bytes, signature: Signature, json: Json) -> Rows:
    """Return the validated inputs that ``body`` spells.

    Raises:
        RequestRefusedError: ``invalid_input``, with row and field where there is one.
    """
    try:
        document = json.loads(body)
    except InvalidJsonError as error:
        raise invalid(str(error)) from error
    if type(document) is not dict:
        raise invalid("the body is not a JSON object")
    given = [selector for selector in SELECTORS if selector in document]
    if len(given) != 1:
        found = "none" if not given else " and ".join(repr(selector) for selector in given)
        raise invalid(f"the body needs exactly one of {', '.join(SELECTORS)}; it has {found}")
    if unknown := document.keys() - {*given, "params"}:
        raise invalid(f"the body has {len(unknown)} fields beside {given[0]!r} and 'params'")
    inputs = _READERS[given[0]](signature, document[given[0]])
    if signature.params or "params" in document:
        inputs.params.update(rules.validate_params(signature, document.get("params")))
    return inputs


class Envelope:
    """What is around the predictions of an answer; the same for a batch but for the id."""

    def __init__(self, json: Json, *, model: str, version: int, predict_s: float) -> None:
        """Spell what does not change."""
        self._json = json
        named = {"model_name": model, "model_version": version}
        now = dt.datetime.now(dt.timezone.utc).isoformat()  # noqa: UP017  # Python 3.10
        timed = {"timestamp": now, "inference_time_ms": round(predict_s * 1000, 3)}
        self._after_rows = b",%b" % json.dumps(named)[1:-1]
        self._after_id = b",%b" % json.dumps(timed)[1:-1]

    def answer(self, predictions: Any, extras: dict[str, Any]) -> bytes:
        """Return one request's answer.

        Raises:
            RequestRefusedError: ``model_error``: JSON has no spelling for a prediction.
        """
        try:
            rows = self._json.dumps(predictions)
            more = b",%b" % self._json.dumps(extras)[1:] if extras else b"}"
        except InvalidJsonError as error:
            raise model_error(f"the model's answer cannot be sent: {error}") from error
        number = os.urandom(16).hex().encode()
        return b'{"predictions":%b%b,"prediction_id":"%b"%b%b' % (
            rows,
            self._after_rows,
            number,
            self._after_id,
            more,
        )


# --- the five shapes ----------------------------------------------------------------------------


def _dataframe_split(signature: Signature, value: Any) -> Rows:
    if type(value) is not dict or type(value.get("data")) is not list:
        raise invalid(
            "'dataframe_split' is not an object with 'columns' and 'data'",
            (None, "dataframe_split", "not an object with 'columns' and 'data'"),
        )
    labels = value.get("columns")
    if labels is None and signature.columns:
        labels = [column.label for column in signature.columns]
    if type(labels) is not list or not all(type(label) in {str, int} for label in labels):
        raise invalid(
            "'columns' is not a list of names",
            (None, "dataframe_split.columns", "not a list of names"),
        )
    return rules.from_rows(signature, labels, value["data"])


def _dataframe_records(signature: Signature, value: Any) -> Rows:
    return rules.from_records(signature, _list("dataframe_records", value))


def _instances(signature: Signature, value: Any) -> Rows:
    rows = _list("instances", value)
    if rows and type(rows[0]) is dict:
        return rules.from_records(signature, rows)
    return _positional(signature, rows)


def _inputs(signature: Signature, value: Any) -> Rows:
    if type(value) is not dict:
        return _instances(signature, _list("inputs", value))
    if signature.tensors:
        return rules.from_named_tensors(signature, value)
    if not any(type(column) is list for column in value.values()):
        return rules.from_records(signature, [value])
    lengths = {len(column) if type(column) is list else -1 for column in value.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise invalid("the columns are not lists of one length")
    return rules.from_columns(signature, value, lengths.pop())


def _features(signature: Signature, value: Any) -> Rows:
    if type(value) is dict:
        return rules.from_records(signature, [value])
    row = _list("features", value)
    if signature.tensors and len(signature.tensors[0].shape) == 1:
        return rules.from_tensor(signature, row)
    return _positional(signature, [row])


def _positional(signature: Signature, rows: list[Any]) -> Rows:
    """Read rows without names: lists in the order of the signature, or a tensor."""
    if not signature.columns:
        return rules.from_tensor(signature, rows)
    labels = [column.label for column in signature.columns]
    if len(labels) == 1 and not any(type(row) is list for row in rows):
        return rules.from_columns(signature, {labels[0]: rows}, len(rows))
    return rules.from_rows(signature, labels, rows)


def _list(field: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise invalid(f"{field!r} is not a list", (None, field, "not a list"))
    return value


_READERS: dict[str, Callable[[Signature, Any], Rows]] = {
    "dataframe_split": _dataframe_split,
    "dataframe_records": _dataframe_records,
    "instances": _instances,
    "inputs": _inputs,
    "features": _features,
}
