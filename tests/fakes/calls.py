"""Calls for one model, and nodes that list it."""

import time
from typing import Any

from gateway.contract.catalogue import Catalogue, CatalogueModel, CatalogueVersion, VersionState
from gateway.contract.node_state import ActiveAlias
from gateway.contract.references import parse_selector
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.admission import Admission
from gateway.serving.call import Call

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
ACTIVE = ActiveAlias(model="churn", alias="champion", version=1, digest=DIGEST, since=1.0)


def call_of(selector="champion", body=b"{}", seconds=None, second_selector=None):
    return Call(
        model="churn",
        selector=parse_selector(selector) if selector else None,
        second_selector=parse_selector(second_selector) if second_selector else None,
        protocol="predict",
        content_type="application/json",
        content_encoding="",
        request_id="r",
        body=body,
        slot=Admission(max_in_flight=9, max_in_flight_bytes=999).enter(len(body)),
        deadline=time.monotonic() + seconds if seconds is not None else None,
    )


def catalogue_of(*versions, aspired=1, epoch=1):
    model = CatalogueModel(name="churn", versions=list(versions), aliases={"champion": aspired})
    return Catalogue(writer="w", epoch=epoch, models=[model])


def version_of(number=1, state=VersionState.AVAILABLE, digest: str | None = DIGEST, **more: Any):
    return CatalogueVersion(version=number, state=state, digest=digest, **more)


def node_of(*versions, aspired=1, active=False, monotonic=lambda: 0.0):
    """A node whose catalogue lists these versions, or version 1."""
    catalogue = catalogue_of(*(versions or [version_of()]), aspired=aspired)
    table = RouteTable("champion", catalogue=catalogue)
    table = table.with_active(ACTIVE) if active else table
    return Node(node_id="n", boot_id="b", table=table, monotonic=monotonic)
