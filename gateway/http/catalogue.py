"""The routes that show models, versions and aliases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Response

from gateway.contract import (
    LATEST,
    ActiveAlias,
    AliasRef,
    ArtifactRef,
    CatalogueModel,
    CatalogueVersion,
    InvalidReferenceError,
    Policy,
    VersionState,
    parse_model_name,
    parse_selector,
    to_rfc3339,
)
from gateway.errors import InvalidSelectorError, RegistryUnavailableError, VersionNotFoundError
from gateway.http.services import OurServices, Services
from gateway.routing import Node, RouteTable, has_bytes
from gateway.serving import Resident
from gateway.system import in_slices
from gateway.system.logs import for_public

router = APIRouter(tags=["catalogue"])
_OF_LOADED = (
    "peak_bytes", "batching", "joined_rows", "answers", "python", "frameworks", "call_path",
    "warm_up", "expected_answers", "durations_s",
)  # fmt: skip
"""Fields of a worker's report of its load that are shown unchanged; each is None before it."""


@router.get("/models")
async def list_models(services: OurServices) -> Response:
    """List every registered model with its aliases, and the time of the last listing.

    There may be thousands: they are described in slices, all from one table.
    """
    table = services.node.table
    models = (_summary(services.node, table, table.model(name)) for name in table.names())
    other = {"generation": table.generation, "registry": registry_freshness(services)}
    return await _sliced("models", models, other)


@router.get("/models/{model}")
async def get_model(services: OurServices, model: str) -> Response:
    """Show one model: its versions, and what each alias means here and in the registry, and why."""
    table = services.node.table
    entry = table.model(_name(model))
    other = {
        **_summary(services.node, table, entry),
        "policy": _policy(entry.policy),
        "generation": table.generation,
        "registry": registry_freshness(services),
    }
    versions = (_version(services, table, entry, one, whole=False) for one in entry.versions)
    return await _sliced("versions", versions, other)


async def _sliced(name: str, items: Iterable[Any], other: dict[str, Any]) -> Response:
    """Return an object with other members and one list, which is made in slices."""
    encoded = [orjson.dumps(one) async for one in in_slices(items)]
    body = b'%b,"%b":[%b]}' % (orjson.dumps(other)[:-1], name.encode(), b",".join(encoded))
    return Response(body, media_type="application/json")


@router.get("/models/{model}/versions/{version}")
async def get_version(services: OurServices, model: str, version: str) -> dict[str, Any]:
    """Show one version: state, aliases, digest, signature, framework versions, input example."""
    table = services.node.table
    name = _name(model)
    try:
        selector = parse_selector(version)
    except InvalidReferenceError as error:
        raise InvalidSelectorError(f"not a version or alias: {error}") from error
    entry = table.model(name)
    if isinstance(selector, int):
        found = table.version(name, selector)
    else:
        route = table.resolve(name, selector)
        found = table.version(name, route.version)
        if route.digest is not None and not has_bytes(found, route.digest):
            found = _predecessor(found.version, route.digest)
    return _version(services, table, entry, found, whole=True)


def _predecessor(number: int, digest: str) -> CatalogueVersion:
    """Return the entry of served bytes whose version was made anew since."""
    return CatalogueVersion(
        version=number,
        state=VersionState.AVAILABLE,
        digest=digest,
        accepted_digest=digest,
        reason=(
            f"version {number} was made anew in the registry: the alias means its predecessor "
            f"until its own bytes are active; `/versions/{number}` shows those"
        ),
    )


def registry_freshness(services: Services) -> dict[str, Any]:
    """Return the time of the last listing, and its error."""
    catalogue = services.node.table.catalogue
    return {
        "listed_at": to_rfc3339(catalogue.listed_at) if catalogue else None,
        "error": _public(catalogue.source_error if catalogue else None),
        "control_plane": _presence(services.node),
    }


def _presence(node: Node) -> str:
    """Return whether the control plane is ``up`` or ``silent``, or was ``not_heard`` so far."""
    if node.control_plane_silent:
        return "silent"
    return "up" if node.control_plane_heard else "not_heard"


def _public(reason: str | None) -> str | None:
    """Return a reason without secrets and addresses."""
    return None if reason is None else for_public(reason)


def _each_public(value: Any) -> Any:
    """Return a part of a description without secrets and addresses."""
    if isinstance(value, str):
        return for_public(value)
    if isinstance(value, list):
        return [_each_public(one) for one in value]
    if isinstance(value, dict):
        return {key: _each_public(one) for key, one in value.items()}
    return value


def _name(text: str) -> str:
    try:
        return parse_model_name(text)
    except InvalidReferenceError as error:
        raise InvalidSelectorError(str(error)) from error


def _summary(node: Node, table: RouteTable, model: CatalogueModel) -> dict[str, Any]:
    active = table.active_of(model.name)
    aliases = {
        alias: _alias(node, table, model, alias) for alias in sorted({*model.aliases, *active})
    }
    return {
        "name": model.name,
        "href": f"/models/{quote(model.name, safe='')}",
        "default": _default_alias(table, model),
        "aliases": aliases,
        "problems": [for_public(one) for one in model.policy.problems],
    }


def _alias(node: Node, table: RouteTable, model: CatalogueModel, alias: str) -> dict[str, Any]:
    """Return an alias: its ``active`` version, and the one ``aspired`` by the registry."""
    ref = AliasRef(model.name, alias)
    active = table.active.get(ref)
    aspired = model.aliases.get(alias)
    rolled_back = {(one.alias_ref, one.version): one.reason for one in table.refused_digests}
    return {
        "active": active.version if active else None,
        "aspired": aspired,
        "digest": active.digest if active else None,
        "since": to_rfc3339(active.since) if active else None,
        "previous": active.previous_version if active else None,
        "why": _public(
            node.warnings.get(ref)
            or (node.why_damaged(active.digest) if active else None)
            or rolled_back.get((ref, aspired))
            or model.notes.get(alias)
            or _why(table, model, active, aspired)
        ),
        "signature_change": _public(model.signature_changes.get(alias)),
    }


def _why(
    table: RouteTable, model: CatalogueModel, active: ActiveAlias | None, aspired: int | None
) -> str | None:
    """Return why an alias does not mean its aspired version, or None if it does."""
    if aspired is None:
        return None
    is_active = active is not None and active.version == aspired
    try:
        entry = table.version(model.name, aspired)
    except (VersionNotFoundError, RegistryUnavailableError):
        return None if is_active else f"version {aspired} is not listed"
    if is_active and active is not None:
        if has_bytes(entry, active.digest):
            return None
        return (
            f"version {aspired} has other bytes in the registry now; the earlier bytes serve until "
            f"it is active: {entry.reason or f'it is {entry.state.value}'}"
        )
    absent = active is None and entry.state is VersionState.REGISTERED and entry.reason is None
    if absent and table.policy_of(ArtifactRef(model.name, aspired, "")).load == "on_demand":
        return f"version {aspired} comes when it is called: gateway.load is on_demand"
    return entry.reason or f"version {aspired} is {entry.state.value}"


def _default_alias(table: RouteTable, model: CatalogueModel) -> str | None:
    for alias in (model.default_alias or table.default_alias, LATEST):
        if AliasRef(model.name, alias) in table.active or alias in model.aliases:
            return alias
    return None


def _version(
    services: Services,
    table: RouteTable,
    model: CatalogueModel,
    entry: CatalogueVersion,
    *,
    whole: bool,
) -> dict[str, Any]:
    description = entry.description or {}
    ref = ArtifactRef(model.name, entry.version, entry.digest or "")
    replicas = _replicas(services, ref, entry)
    aliases = sorted(
        alias
        for alias, one in table.active_of(model.name).items()
        if one.version == entry.version and has_bytes(entry, one.digest)
    )
    history = services.residents.load_history
    trouble = history.trouble(ref)
    body: dict[str, Any] = {
        "name": model.name,
        "version": entry.version,
        "state": "load_failed" if trouble else _state(entry, replicas),
        "reason": _public(trouble[0] if trouble else entry.reason or history.keeps_dying(ref)),
        "aliases": aliases,
        "digest": entry.digest,
        "expected_digest": entry.expected_digest,
        "unstamped": not entry.stamped,
        "size_bytes": entry.size_bytes,
        "flavor": description.get("flavor"),
        "policy": _policy(table.policy_of(ref)),
    }
    if whole:
        body |= {
            "signature": description.get("signature"),
            "frameworks": description.get("frameworks"),
            "requirements": _each_public(description.get("requirements")),
            "dependency_verdict": _each_public(description.get("dependency_verdict")),
            # The Python is a path of this node.
            "environment": table.environment_of(ref).model_dump(exclude={"python"}),
            "input_example": (description.get("example") or {}).get("serving"),
            "replicas": [_replica(one) for one in replicas],
            "created_at": to_rfc3339(entry.created_at),
            "retry_at": to_rfc3339(
                services.node.clock() + trouble[1] if trouble else entry.retry_at
            ),
        }
    return body


def _policy(policy: Policy) -> dict[str, Any]:
    """Return a policy; the problems with tags are shown with the model."""
    return policy.model_dump(exclude_none=True, exclude={"problems"})


def _replicas(services: Services, ref: ArtifactRef, entry: CatalogueVersion) -> list[Resident]:
    found = [
        one
        for one in services.residents.residents()
        if one.key[:2] == ref[:2] and has_bytes(entry, one.key.digest)
    ]
    return sorted(found, key=lambda one: one.number)


def _state(entry: CatalogueVersion, replicas: list[Resident]) -> str:
    """Return the version's state on this node."""
    if entry.state is VersionState.AVAILABLE and replicas:
        return "resident" if any(one.ready for one in replicas) else "loading"
    return entry.state.value


def _replica(resident: Resident) -> dict[str, Any]:
    loaded = resident.replica.loaded
    return {
        "state": resident.replica.state.value,
        "pid": resident.replica.pid,
        "in_flight": resident.replica.in_flight,
        "resident_bytes": resident.bytes,
        "gpu_bytes": resident.replica.gpu_bytes if loaded else None,
        **{name: getattr(loaded, name, None) for name in _OF_LOADED},
        "batching_reason": _public(loaded.batching_reason) if loaded else None,
        "call_path_reason": _public(loaded.call_path_reason) if loaded else None,
    }
