"""What the ledger remembers as rows of its tables, and rows as what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Row

from registry_sync.domain import (
    Activation,
    AskedBy,
    Aspired,
    AspiredModel,
    AspiredVersion,
    Attempt,
    Decision,
    Freeze,
    Hold,
    PinnedVersion,
    Quarantine,
    Rejection,
)

_MAX_REASON_CHARACTERS = 2000
_OTHER_LIBRARIES = "the gateway has other libraries than those under which it failed"

Values = dict[str, Any]
"""What a row has besides the node that it belongs to."""


# --- bytes and verdicts ---------------------------------------------------------------------------


def pin_values(pin: PinnedVersion, *, at: float) -> Values:
    """Return the row of accepted bytes, ``at`` epoch seconds."""
    return {
        "model": pin.model,
        "version": pin.version,
        "digest": pin.digest,
        "expected_digest": pin.expected_digest,
        "stamped": pin.stamped,
        "listing": pin.listing,
        "at": at if pin.accepted_at is None else pin.accepted_at,
        "creation": pin.creation,
        "gone_at": pin.gone_at,
        "superseded": pin.superseded,
    }


def pin_of(row: Row[Any]) -> PinnedVersion:
    """Return the bytes that were accepted."""
    return PinnedVersion(
        row.model,
        row.version,
        row.digest,
        row.expected_digest,
        bool(row.stamped),
        row.listing,
        row.creation,
        row.gone_at,
        bool(row.superseded),
        row.at,
    )


def quarantine_values(found: Quarantine) -> Values:
    """Return the row of bytes that are wrong."""
    return {
        "model": found.model,
        "version": found.version,
        "expected_digest": found.expected_digest,
        "listing": found.listing,
        "found_digest": found.found_digest,
        "reason": _bounded(found.reason),
        "at": found.at,
        "asked_by": None if found.asked_by is None else str(found.asked_by),
        "creation": found.creation,
    }


def quarantine_of(row: Row[Any]) -> Quarantine:
    """Return the bytes that are wrong."""
    return Quarantine(
        row.model,
        row.version,
        row.expected_digest,
        row.listing,
        row.found_digest,
        row.reason,
        row.at,
        row.asked_by,
        row.creation,
    )


def rejection_values(found: Rejection) -> Values:
    """Return the row of a version that no alias may follow."""
    return {
        "model": found.model,
        "version": found.version,
        "digest": found.digest,
        "failure": found.failure,
        "reason": _bounded(found.reason),
        "at": found.at,
        "libraries": found.libraries,
    }


def rejection_of(row: Row[Any]) -> Rejection:
    """Return the version that no alias may follow."""
    return Rejection(
        row.model, row.version, row.digest, row.failure, row.reason, row.at, row.libraries
    )


# --- what operators keep --------------------------------------------------------------------------


def hold_values(hold: Hold) -> Values:
    """Return the row of an alias that stays where it is told."""
    return {
        "model": hold.model,
        "alias": hold.alias,
        "aspired_version": hold.aspired_version,
        "target_version": hold.target_version,
        "target_digest": hold.target_digest,
        "asked_by": str(hold.asked_by),
        "at": hold.at,
        "lasting": hold.lasting,
        "aspired_creation": hold.aspired_creation,
        "target_creation": hold.target_creation,
    }


def hold_of(row: Row[Any]) -> Hold:
    """Return the alias that stays where it is told."""
    return Hold(
        row.model,
        row.alias,
        row.aspired_version,
        row.target_version,
        row.target_digest,
        row.asked_by,
        row.at,
        bool(row.lasting),
        row.aspired_creation,
        row.target_creation,
    )


def freeze_values(freeze: Freeze) -> Values:
    """Return the row of a freeze."""
    return {"asked_by": str(freeze.asked_by), "at": freeze.at}


def freeze_of(row: Row[Any]) -> Freeze:
    """Return the freeze."""
    return Freeze(row.asked_by, row.at)


# --- history --------------------------------------------------------------------------------------


def activation_values(activation: Activation) -> Values:
    """Return the row of an alias that moved."""
    return {
        "model": activation.model,
        "alias": activation.alias,
        "version": activation.version,
        "digest": activation.digest,
        "previous_version": activation.previous_version,
        "previous_digest": activation.previous_digest,
        "asked_by": str(activation.asked_by),
        "at": activation.at,
        "generation": activation.generation,
        "durations_s": _rounded(activation.durations_s) or None,
        "pinned": activation.pinned,
        "reason": _bounded(activation.reason) if activation.reason else None,
        "creation": activation.creation,
    }


def activation_of(row: Row[Any]) -> Activation:
    """Return the alias that moved."""
    return Activation(
        row.model,
        row.alias,
        row.version,
        row.digest,
        row.previous_version,
        row.previous_digest,
        row.asked_by,
        row.at,
        row.generation,
        row.durations_s or {},
        row.retired_at,
        bool(row.pinned),
        row.reason,
        row.creation,
    )


def attempt_values(attempt: Attempt) -> Values:
    """Return the row of one try of one step."""
    return {
        "model": attempt.model,
        "alias": attempt.alias,
        "version": attempt.version,
        "action": attempt.action,
        "asked_by": str(attempt.asked_by),
        "started_at": attempt.started_at,
        "durations_s": _rounded(attempt.durations_s),
        "outcome": attempt.outcome,
        "reason": _bounded(attempt.reason) if attempt.reason else None,
    }


def attempt_of(row: Row[Any]) -> Attempt:
    """Return the try."""
    return Attempt(
        row.model,
        row.alias,
        row.version,
        row.action,
        row.asked_by,
        row.started_at,
        row.durations_s,
        row.outcome,
        row.reason,
    )


def decisions_of_hold(row: Row[Any]) -> Iterator[Decision]:
    """Yield how a hold began, and how it ended."""
    what, end = ("pin", "unpin") if row.lasting else ("hold", "release")
    version = row.target_version
    yield Decision(row.at, what, row.model, row.alias, version, row.asked_by)
    if row.released_by is not None:  # one that another hold replaced ends without a word
        yield Decision(row.released_at, end, row.model, row.alias, version, row.released_by)


def decisions_of_quarantine(row: Row[Any]) -> Iterator[Decision]:
    """Yield how a quarantine began, and how somebody ended it."""
    about = {"model": row.model, "version": row.version}
    yield Decision(row.at, "quarantine", asked_by=row.asked_by, reason=row.reason, **about)
    if row.released_by is not None:
        yield Decision(row.released_at, "release quarantine", asked_by=row.released_by, **about)


def decisions_of_rejection(row: Row[Any]) -> Iterator[Decision]:
    """Yield who let a version be tried again; that it was rejected, its try tells."""
    if row.released_by is not None:
        why = _OTHER_LIBRARIES if row.released_by == AskedBy.RESTART else None
        yield Decision(row.released_at, "retry", row.model, None, row.version, row.released_by, why)


def decisions_of_freeze(row: Row[Any]) -> Iterator[Decision]:
    """Yield how a freeze began, and how it ended."""
    yield Decision(row.at, "freeze", None, asked_by=row.asked_by)
    if row.released_at is not None:
        yield Decision(row.released_at, "unfreeze", None, asked_by=row.released_by)


def _bounded(reason: str) -> str:
    return reason[:_MAX_REASON_CHARACTERS]


def _rounded(durations_s: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 6) for phase, seconds in durations_s.items()}


# --- the last listing -----------------------------------------------------------------------------


def listing_values(aspired: Aspired) -> Values:
    """Return the row of a listing."""
    models = [_model_body(model) for model in aspired.models.values()]
    return {"listed_at": aspired.listed_at, "body": {"models": models}}


def listed_model_values(name: str, model: AspiredModel | None, *, listed_at: float) -> Values:
    """Return the row of one model as it is listed; None: it is listed no more."""
    body = None if model is None else _model_body(model)
    return {"model": name, "listed_at": listed_at, "body": body}


def listed_model_of(row: Row[Any]) -> AspiredModel:
    """Return the model of a row that has one."""
    return _model_of(row.body)


def _model_body(model: AspiredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "aliases": dict(model.aliases),
        "unfollowed": sorted(model.unfollowed),
        "left_out": sorted(model.left_out),
        "aliases_known": model.aliases_known,
        "tags": dict(model.tags),
        "problems": list(model.problems),
        # Beside the versions: an older release reads these by their names, and refuses another one.
        "stamp_problems": {
            str(one.version): one.stamp_problem
            for one in model.versions.values()
            if one.stamp_problem
        },
        "creations": {
            str(one.version): one.creation
            for one in model.versions.values()
            if one.creation is not None
        },
        "stamps_fixed": [one.version for one in model.versions.values() if one.stamp_fixed],
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
            for one in model.versions.values()
        ],
    }


def listing_of(row: Row[Any]) -> Aspired:
    """Return the listing."""
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
        left_out=frozenset(body.get("left_out", ())),
        aliases_known=body.get("aliases_known", True),
        tags=body["tags"],
        problems=tuple(body["problems"]),
    )
