"""The protocol ``predict``: JSON bodies in any of five shapes, JSON answers with an envelope."""

from __future__ import annotations

import datetime as dt
import os
from functools import lru_cache
from typing import Any

from gateway.worker.codecs import shapes, strict_json
from gateway.worker.codecs.strict_json import MAX_DEPTH, InvalidJsonError, NotFiniteError
from gateway.worker.errors import RequestRefusedError, invalid, model_error
from gateway.worker.rows import signature as rules
from gateway.worker.rows.plain_rows import Rows
from gateway.worker.rows.signature import Signature

CONTENT_TYPE = "application/json"
_LONG_BYTES = 64 * 1024
"""A longer body that is deeper than any input of the model is refused before it is parsed."""


@lru_cache(maxsize=64)  # callers of one model repeat the same headers
def check_content(content_type: str, content_encoding: str) -> None:
    """Refuse bodies other than uncompressed JSON in UTF-8.

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


def decode(body: bytes, signature: Signature) -> Rows:
    """Return the validated inputs in a body.

    Raises:
        RequestRefusedError: ``invalid_input``, with row and field if known.
    """
    try:
        levels = signature.levels if len(body) > _LONG_BYTES else MAX_DEPTH
        document = strict_json.loads(body, levels)
    except InvalidJsonError as error:
        raise invalid(str(error)) from error
    if type(document) is not dict:
        raise invalid("the body must be a JSON object")
    given = [shape for shape in shapes.SHAPES if shape in document]
    params = document.get("params")
    if len(given) == 1:
        if len(document) > 1:
            shapes.refuse_unknown(document, {given[0], "params"})
        inputs = shapes.read(given[0], signature, document[given[0]])
    elif not given and not shapes.LLM_MEMBERS.isdisjoint(document):
        request, params = _without_params(signature, document)
        inputs = shapes.read_llm_request(signature, request)
    else:
        found = " and ".join(map(repr, given)) or "none"
        raise invalid(f"the body needs exactly one of {', '.join(shapes.SHAPES)}; it has {found}")
    if signature.params or params is not None:
        inputs.params.update(rules.validate_params(signature, params))
    return inputs


def _without_params(signature: Signature, document: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return an LLM client's request without the model's params, and the params.

    Params are members of the request, as in MLflow's protocol, or members of ``params``.
    """
    names = {param.name for param in signature.params}
    beside = {name: value for name, value in document.items() if name in names}
    rest = {name: value for name, value in document.items() if name not in names}
    if not signature.enforced:
        return rest, beside or None
    under = rest.pop("params", None)
    return rest, {**under, **beside} if type(under) is dict else under or beside or None


class Envelope:
    """The members of an answer beside its predictions; encoded once for a batch, except the id.

    ``nulls`` replaces numbers that are not finite by null.
    """

    def __init__(self, *, model: str, version: int, predict_s: float, nulls: bool = True) -> None:
        self._dumps = strict_json.dumps_with_nulls if nulls else strict_json.dumps
        named = {"model_name": model, "model_version": version}
        now = dt.datetime.now(dt.timezone.utc).isoformat()  # noqa: UP017  # Python 3.10
        timed = {"timestamp": now, "inference_time_ms": round(predict_s * 1000, 3)}
        self._after_rows = b",%b" % strict_json.dumps(named)[1:-1]
        self._after_id = b",%b" % strict_json.dumps(timed)[1:-1]

    def answer(self, predictions: Any, extras: dict[str, Any]) -> bytes:
        """Return one request's answer.

        Raises:
            RequestRefusedError: ``model_error``: JSON cannot express a prediction; ``not_finite``:
                a number is not finite, and null must not replace it.
        """
        field, more = "predictions", b""
        try:
            rows = self._dumps(predictions)
            for field, value in extras.items():
                more += b',"%b":%b' % (field.encode(), self._dumps(value))
        except NotFiniteError as error:
            reason = "a number that is not finite"
            raise RequestRefusedError(
                "not_finite", f"the model's answer has {reason}", [(error.row, field, reason)]
            ) from error
        except InvalidJsonError as error:
            raise model_error(f"the model's answer cannot be sent: {error}") from error
        number = os.urandom(16).hex().encode()
        return b'{"predictions":%b%b,"prediction_id":"%b"%b%b}' % (
            rows,
            self._after_rows,
            number,
            self._after_id,
            more,
        )
