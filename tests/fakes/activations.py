"""Activations as the control plane asks for them."""

from typing import Any

from gateway.contract import ActivateRequest, AliasRef, AliasTarget, ArtifactRef
from gateway.routing.route_table import RouteTable


def activation(table: RouteTable, alias: str, ref: ArtifactRef, **members: Any) -> ActivateRequest:
    """Return the request to point an alias of this table at a version."""
    before = table.active.get(AliasRef(ref.model, alias))
    target = AliasTarget(version=before.version, digest=before.digest) if before else AliasTarget()
    return ActivateRequest(alias=alias, **ref._asdict(), **{"if_active": target} | members)
