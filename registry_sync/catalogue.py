"""What the gateway is told of the registry: the full snapshot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from gateway.control_contract import CatalogueModel, CatalogueVersion, Policy, VersionState
from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.plan import admissible_digest, expected_digest, is_quarantined
from registry_sync.records import LedgerView, PinnedVersion

_TIMEOUT_TAG = "gateway.timeout_s"
_ROWS_TAG = "gateway.max_batch_rows"
_MAX_TIMEOUT_S = 3600.0
_MAX_BATCH_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """A step that failed for now: ``retry_at`` in epoch seconds."""

    reason: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of versions on this node.

    Attributes:
        descriptions: Of every artifact in the store, by digest; they carry ``size_bytes``.
        fetching: Versions whose bytes are on their way.
        troubles: Versions whose fetch failed and is tried again.
    """

    descriptions: Mapping[str, Mapping[str, Any]]
    fetching: AbstractSet[tuple[str, int]] = frozenset()
    troubles: Mapping[tuple[str, int], Trouble] = field(default_factory=dict)


def describe_models(aspired: Aspired, ledger: LedgerView, known: Known) -> list[CatalogueModel]:
    """Return every model that is listed, or whose bytes were accepted here once."""
    deleted: dict[str, list[PinnedVersion]] = {}
    for (name, version), pin in ledger.pins.items():
        listed = aspired.models.get(name)
        if listed is None or version not in listed.versions:
            deleted.setdefault(name, []).append(pin)
    return [
        _model(name, aspired.models.get(name), deleted.get(name, []), ledger, known)
        for name in sorted({*aspired.models, *deleted})
    ]


def _model(
    name: str,
    listed: AspiredModel | None,
    deleted: list[PinnedVersion],
    ledger: LedgerView,
    known: Known,
) -> CatalogueModel:
    versions = [
        _version(one, ledger, known) for one in (listed.versions if listed else {}).values()
    ]
    versions += [_deleted(pin, known) for pin in deleted]
    return CatalogueModel(
        name=name,
        versions=sorted(versions, key=lambda one: one.version),
        aliases=dict(listed.aliases) if listed else {},
        notes=_notes(name, ledger),
        policy=read_policy(listed) if listed else Policy(),
    )


def _notes(name: str, ledger: LedgerView) -> dict[str, str]:
    """Say of each held alias that it is held, at what, and until when."""
    return {
        alias: f"held at version {hold.target_version} by {hold.asked_by} until the registry "
        f"points it at another version than {hold.aspired_version}"
        for (model, alias), hold in ledger.holds.items()
        if model == name
    }


def _version(listed: AspiredVersion, ledger: LedgerView, known: Known) -> CatalogueVersion:
    key = (listed.model, listed.version)
    digest = admissible_digest(listed, ledger)
    description = known.descriptions.get(digest or "")
    state, reason, retry_at = _state(listed, ledger, known, here=description is not None)
    rejection = _rejection(key, digest, ledger)
    return CatalogueVersion(
        version=listed.version,
        state=state,
        digest=digest if description is not None else None,
        expected_digest=expected_digest(listed, ledger),
        stamped=listed.stamped,
        rejected=rejection is not None,
        reason=reason or rejection or _first(listed.problems),
        description=dict(description) if description is not None else None,
        retry_at=retry_at,
        size_bytes=_size(description),
        created_at=listed.created_at,
    )


def _state(
    listed: AspiredVersion, ledger: LedgerView, known: Known, *, here: bool
) -> tuple[VersionState, str | None, float | None]:
    key = (listed.model, listed.version)
    if is_quarantined(listed, ledger):
        return VersionState.QUARANTINED, ledger.quarantines[key].reason, None
    if here:
        return VersionState.AVAILABLE, None, None
    if key in known.fetching:
        return VersionState.FETCHING, None, None
    if key in known.troubles:
        trouble = known.troubles[key]
        return VersionState.FAILED, trouble.reason, trouble.retry_at
    return VersionState.REGISTERED, None, None


def _rejection(key: tuple[str, int], digest: str | None, ledger: LedgerView) -> str | None:
    found = ledger.rejections.get((*key, digest or ""))
    return f"rejected for aliases ({found.failure}): {found.told}" if found else None


def _deleted(pin: PinnedVersion, known: Known) -> CatalogueVersion:
    description = known.descriptions.get(pin.digest)
    return CatalogueVersion(
        version=pin.version,
        state=VersionState.DELETED,
        digest=pin.digest if description is not None else None,
        expected_digest=pin.expected_digest,
        stamped=pin.stamped,
        reason="the registry no longer has this version",
        description=dict(description) if description is not None else None,
        size_bytes=_size(description),
    )


def _size(description: Mapping[str, Any] | None) -> int | None:
    size = (description or {}).get("size_bytes")
    return size if isinstance(size, int) else None


def _first(problems: tuple[str, ...]) -> str | None:
    return problems[0] if problems else None


def read_policy(listed: AspiredModel) -> Policy:
    """Read the policy tags of a model; one that cannot be read is a problem, and ignored."""
    problems = list(listed.problems)
    timeout_s = _number(listed.tags, _TIMEOUT_TAG, _MAX_TIMEOUT_S, problems)
    rows = _number(listed.tags, _ROWS_TAG, _MAX_BATCH_ROWS, problems)
    if rows is not None and rows != int(rows):
        problems.append(f"the tag {_ROWS_TAG} is ignored: not a whole number")
        rows = None
    return Policy(
        timeout_s=timeout_s,
        max_batch_rows=None if rows is None else int(rows),
        problems=problems,
    )


def _number(
    tags: Mapping[str, str], name: str, highest: float, problems: list[str]
) -> float | None:
    text = tags.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not 0 < value <= highest:
        problems.append(f"the tag {name} is ignored: not a number above 0, up to {highest:g}")
        return None
    return value
