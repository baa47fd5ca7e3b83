"""Rows of the ledger's tables for the records, and records for the rows.

The columns of a record's table have the names of its fields, but for `accepted_at`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Row

from registry_sync.domain import (
    AcceptedDigest,
    Activation,
    Aspired,
    AspiredModel,
    AspiredVersion,
    Attempt,
    Decision,
    Freeze,
    Hold,
    Initiator,
    Quarantine,
    Rejection,
)

_MAX_REASON_CHARACTERS = 2000
_OTHER_LIBRARIES = "the gateway has other libraries than those under which it failed"

Values = dict[str, Any]
"""The columns of a row, without the node's id."""
_Record = TypeVar(
    "_Record", AcceptedDigest, Quarantine, Rejection, Hold, Freeze, Activation, Attempt
)


def values_of(record: _Record) -> Values:
    """Return the row of a record."""
    return {
        _column(field.name): _value(field.name, getattr(record, field.name))
        for field in fields(record)
    }


def _column(field: str) -> str:
    return "at" if field == "accepted_at" else field


def _value(name: str, value: Any) -> Any:
    if isinstance(value, StrEnum):
        return str(value)
    if name == "durations_s":
        return {phase: round(seconds, 6) for phase, seconds in value.items()}
    return value[:_MAX_REASON_CHARACTERS] if name == "reason" and value else value


def record_of(kind: type[_Record], row: Row[Any]) -> _Record:
    """Return the record of a row; a field that an older release left empty has its default."""
    values = {field: getattr(row, _column(field.name)) for field in fields(kind)}
    return kind(
        **{
            field.name: value
            for field, value in values.items()
            if value is not None or _is_required(field)
        }
    )


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def accepted_values(accepted: AcceptedDigest, *, at: float) -> Values:
    """Return the row of a digest that was accepted ``at`` these epoch seconds, or earlier."""
    if accepted.accepted_at is None:
        accepted = replace(accepted, accepted_at=at)
    return values_of(accepted)


# --- decisions ------------------------------------------------------------------------------------


def decisions_of_hold(row: Row[Any]) -> Iterator[Decision]:
    """Yield the begin of a hold, and its end unless another hold replaced it."""
    what, end = ("pin", "unpin") if row.lasting else ("hold", "end_hold")
    version = row.target_version
    yield Decision(row.at, what, row.model, row.alias, version, row.asked_by)
    if row.ended_by is not None:
        yield Decision(row.ended_at, end, row.model, row.alias, version, row.ended_by)


def decisions_of_quarantine(row: Row[Any]) -> Iterator[Decision]:
    """Yield the begin of a quarantine, and its end if it has an initiator."""
    about = {"model": row.model, "version": row.version}
    yield Decision(row.at, "quarantine", asked_by=row.asked_by, reason=row.reason, **about)
    if row.ended_by is not None:
        yield Decision(row.ended_at, "retry", asked_by=row.ended_by, **about)


def decisions_of_rejection(row: Row[Any]) -> Iterator[Decision]:
    """Yield the end of a rejection; its begin is in the attempts."""
    if row.ended_by is not None:
        why = _OTHER_LIBRARIES if row.ended_by == Initiator.RESTART else None
        yield Decision(row.ended_at, "retry", row.model, None, row.version, row.ended_by, why)


def decisions_of_freeze(row: Row[Any]) -> Iterator[Decision]:
    """Yield the begin and the end of a freeze."""
    yield Decision(row.at, "freeze", None, asked_by=row.asked_by)
    if row.ended_at is not None:
        yield Decision(row.ended_at, "unfreeze", None, asked_by=row.ended_by)


# --- the last listing -----------------------------------------------------------------------------


def listing_values(aspired: Aspired) -> Values:
    """Return the row of a listing."""
    models = [_model_body(model) for model in aspired.models.values()]
    return {"listed_at": aspired.listed_at, "body": {"models": models}}


def listed_model_values(name: str, model: AspiredModel | None, *, listed_at: float) -> Values:
    """Return the row of one listed model, or of one that is listed no more (None)."""
    body = None if model is None else _model_body(model)
    return {"model": name, "listed_at": listed_at, "body": body}


def listed_model_of(row: Row[Any]) -> AspiredModel:
    """Return the model of a row that has a body."""
    return _model_of(row.body)


def _model_body(model: AspiredModel) -> dict[str, Any]:
    versions = model.versions.values()
    return {
        "name": model.name,
        "aliases": dict(model.aliases),
        "unfollowed": sorted(model.unfollowed),
        "left_out": sorted(model.unready),
        "aliases_known": model.aliases_known,
        "tags": dict(model.tags),
        "problems": list(model.problems),
        # Beside the versions: an older release passes a version's members on by their names.
        "stamp_problems": {
            str(one.version): one.stamp_problem for one in versions if one.stamp_problem
        },
        "creations": {
            str(one.version): one.creation for one in versions if one.creation is not None
        },
        "stamps_fixed": [one.version for one in versions if one.stamp_fixed],
        "versions": [
            {
                "version": one.version,
                "location": one.location,
                "expected_digest": one.expected_digest,
                "tags": dict(one.tags),
                "status": one.status,
                "created_at": one.created_at,
                "problems": list(one.problems),
            }
            for one in versions
        ],
    }


def listing_of(row: Row[Any]) -> Aspired:
    """Return the listing of a row."""
    models = {model["name"]: _model_of(model) for model in row.body["models"]}
    return Aspired(models=models, listed_at=row.listed_at)


def _model_of(body: Mapping[str, Any]) -> AspiredModel:
    stamps, creations = body.get("stamp_problems", {}), body.get("creations", {})
    fixed = frozenset(body.get("stamps_fixed", ()))
    versions = {
        one["version"]: AspiredVersion(
            model=body["name"],
            stamp_problem=stamps.get(str(one["version"])),
            creation=creations.get(str(one["version"])),
            stamp_fixed=one["version"] in fixed,
            **{**one, "problems": tuple(one["problems"])},
        )
        for one in body["versions"]
    }
    return AspiredModel(
        name=body["name"],
        versions=versions,
        aliases=body["aliases"],
        unfollowed=frozenset(body.get("unfollowed", ())),
        unready=frozenset(body.get("left_out", ())),
        aliases_known=body.get("aliases_known", True),
        tags=body["tags"],
        problems=tuple(body["problems"]),
    )
