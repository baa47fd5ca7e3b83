"""The models that a delivery names. Pure.

A hint is no instruction: the registry is listed for every model that it names. Each reader raises
`UnreadableBodyError` for a body that its sender does not write.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_plus

from gateway.contract import InvalidReferenceError, parse_model_name
from registry_sync.sources import Root

_OF_MODELS = ("registered_model", "model_version")
"""Prefixes of MLflow's entities about models; other entities are prompts and budgets."""
_MAX_NAMED = 100

Hinted = frozenset[str] | None
"""The models that may have changed, or None if any model may have changed."""
NOTHING: Hinted = frozenset()


class UnreadableBodyError(Exception):
    """A body that this webhook does not accept. The message says what it accepts."""


def by_mlflow(body: bytes) -> Hinted:
    """Return the model of an MLflow event, or `NOTHING` if it concerns no model."""
    event = _object(body, "an event of MLflow")
    entity, data = event.get("entity"), event.get("data")
    if not isinstance(entity, str) or not isinstance(data, dict):
        raise UnreadableBodyError("an event of MLflow must have `entity` and `data`")
    if not entity.startswith(_OF_MODELS):
        return NOTHING
    return _named(data.get("name"), "`data` of this event must have a `name`")


def by_reload(body: bytes) -> Hinted:
    """Return the model of a reload, ``{"model": "churn"}``, or None for ``{}``: any model."""
    asked = _object(body, "a reload") if body.strip() else {}
    if asked.keys() - {"model"}:
        raise UnreadableBodyError('a reload must be {"model": "NAME"}, or {} for every model')
    return _named(asked["model"], "`model` must be a name") if "model" in asked else None


def by_s3(body: bytes, root: Root | None) -> Hinted:
    """Return the models of an S3 notification, ``{"Records": [...]}``; a test has no records.

    If the registry is not in S3 (``root`` is None), a key does not identify a model: any may have
    changed.
    """
    notification = _object(body, "an S3 event notification")
    records = notification.get("Records", [])
    if not isinstance(records, list):
        raise UnreadableBodyError("`Records` of an S3 event notification must be a list")
    objects = [_bucket_and_key(record) for record in records]
    if root is None:
        return None if objects else NOTHING
    names = {_model_at(bucket, key, root) for bucket, key in objects} - {None}
    return None if len(names) > _MAX_NAMED else frozenset(name for name in names if name)


def _bucket_and_key(record: Any) -> tuple[str, str]:
    """Return bucket and key of one record; S3 encodes keys as in a query."""
    try:
        bucket, key = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
    except (KeyError, TypeError) as error:
        raise UnreadableBodyError(
            "a record of an S3 event notification must have `s3.bucket.name` and `s3.object.key`"
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
        raise UnreadableBodyError(f"{what} must be JSON") from error
    if not isinstance(value, dict):
        raise UnreadableBodyError(f"{what} must be a JSON object")
    return value
