"""Our own protocol: JSON bodies in any of five shapes, JSON answers with an envelope."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gateway.worker import signature as rules
from gateway.worker.codecs.strict_json import InvalidJsonError, Json
from gateway.worker.inputs import Inputs
from gateway.worker.refusals import RequestRefusedError, invalid, model_error
from gateway.worker.signature import Signature

CONTENT_TYPE = "application/json"
SELECTORS = ("instances", "inputs", "dataframe_split", "dataframe_records", "features")


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


def decode(body: bytes, signature: Signature, json: Json) -> Inputs:
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
    params = rules.validate_params(signature, document.get("params"))
    return replace(inputs, params=params) if params else inputs


def encode(
    json: Json,
    predictions: Any,
    *,
    model: str,
    version: int,
    predict_s: float,
    extras: dict[str, Any],
) -> bytes:
    """Return the answer.

    Raises:
        RequestRefusedError: ``model_error``: JSON has no spelling for a prediction.
    """
    answer = {
        "predictions": predictions,
        "model_name": model,
        "model_version": version,
        "prediction_id": uuid.uuid4().hex,
        "timestamp": dt.datetime.now(dt.timezone.utc).isoformat(),  # noqa: UP017  # Python 3.10
        "inference_time_ms": round(predict_s * 1000, 3),
        **extras,
    }
    try:
        return json.dumps(answer)
    except InvalidJsonError as error:
        raise model_error(f"the model's answer cannot be sent: {error}") from error


# --- the five shapes ----------------------------------------------------------------------------


def _dataframe_split(signature: Signature, value: Any) -> Inputs:
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


def _dataframe_records(signature: Signature, value: Any) -> Inputs:
    return rules.from_records(signature, _list("dataframe_records", value))


def _instances(signature: Signature, value: Any) -> Inputs:
    rows = _list("instances", value)
    if rows and type(rows[0]) is dict:
        return rules.from_records(signature, rows)
    return _positional(signature, rows)


def _inputs(signature: Signature, value: Any) -> Inputs:
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


def _features(signature: Signature, value: Any) -> Inputs:
    if type(value) is dict:
        return rules.from_records(signature, [value])
    row = _list("features", value)
    if signature.tensors and len(signature.tensors[0].shape) == 1:
        return rules.from_tensor(signature, row)
    return _positional(signature, [row])


def _positional(signature: Signature, rows: list[Any]) -> Inputs:
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


_READERS: dict[str, Callable[[Signature, Any], Inputs]] = {
    "dataframe_split": _dataframe_split,
    "dataframe_records": _dataframe_records,
    "instances": _instances,
    "inputs": _inputs,
    "features": _features,
}
