"""Which models a delivery is about. Pure: bytes in, names out; nothing in it is believed further.

A hint is no instruction: whatever it names is looked up in the registry. Each reader raises
`UnreadableBodyError` for a body that is not its sender's.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_plus

from gateway.contract import InvalidReferenceError, parse_model_name
from registry_sync.sources import Root

_OF_MODELS = ("registered_model", "model_version")
"""How MLflow's entities begin that are about models; others are prompts and budgets."""
_MAX_NAMED = 100

Hinted = frozenset[str] | None
"""The models to look at; None: look at everything."""
NOTHING: Hinted = frozenset()


class UnreadableBodyError(Exception):
    """A body that is not what this webhook takes. The message says what it takes."""


def by_mlflow(body: bytes) -> Hinted:
    """Return what an event of MLflow is about; an event that concerns no model: nothing."""
    event = _object(body, "an event of MLflow")
    entity, data = event.get("entity"), event.get("data")
    if not isinstance(entity, str) or not isinstance(data, dict):
        raise UnreadableBodyError("an event of MLflow has `entity` and `data`")
    if not entity.startswith(_OF_MODELS):
        return NOTHING
    return _named(data.get("name"), "`data` of this event has a `name`")


def by_reload(body: bytes) -> Hinted:
    """Return what CI asks to look at: ``{"model": "churn"}``, or everything by ``{}``."""
    asked = _object(body, "a reload") if body.strip() else {}
    if asked.keys() - {"model"}:
        raise UnreadableBodyError('a reload is {"model": "NAME"}, or {} for every model')
    return _named(asked["model"], "`model` is a name") if "model" in asked else None


def by_s3(body: bytes, root: Root | None) -> Hinted:
    """Return what a notification of S3, ``{"Records": [...]}``, is about; a test has no records.

    If the registry is not in S3 (``root`` None), keys do not tell the models of their bytes.
    """
    notification = _object(body, "an S3 event notification")
    records = notification.get("Records", [])
    if not isinstance(records, list):
        raise UnreadableBodyError("`Records` of an S3 event notification is a list")
    places = [_place(record) for record in records]
    if root is None:
        return None if places else NOTHING
    names = {_model_at(bucket, key, root) for bucket, key in places} - {None}
    return None if len(names) > _MAX_NAMED else frozenset(name for name in names if name)


def _place(record: Any) -> tuple[str, str]:
    """Return bucket and key of one record; S3 encodes keys as in a query."""
    try:
        bucket, key = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
    except (KeyError, TypeError) as error:
        raise UnreadableBodyError(
            "a record of an S3 event notification has `s3.bucket.name` and `s3.object.key`"
        ) from error
    return str(bucket), unquote_plus(str(key))


def _model_at(bucket: str, key: str, root: Root) -> str | None:
    """Return the model that an object belongs to: the first folder of the registry."""
    if bucket != root.bucket or not key.startswith(root.prefix):
        return None
    name, slash, _ = key.removeprefix(root.prefix).partition("/")
    try:
        return parse_model_name(name) if slash else None
    except InvalidReferenceError:
        return None


def _named(name: Any, demand: str) -> Hinted:
    if not isinstance(name, str):
        raise UnreadableBodyError(demand)
    try:
        name.encode()  # JSON can spell half a character
        return frozenset({parse_model_name(name)})
    except ValueError:
        return NOTHING  # no listing has a model of that name either


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableBodyError(f"{what} is JSON, and this is not") from error
    if not isinstance(value, dict):
        raise UnreadableBodyError(f"{what} is a JSON object")
    return value
