"""Which interpreter a version's worker is started under."""

from pathlib import Path

import pytest

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    VersionState,
)
from gateway.contract.references import ReplicaKey
from gateway.errors import LoadError
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.load_orders import Versions, WorkerLimits
from gateway.serving.replica.launcher import Launchers

DIGEST = "sha256:" + "a" * 64
PYTHON = "/node/environments/abc/bin/python"


def node(environment: Environment) -> Node:
    version = CatalogueVersion(
        version=1, state=VersionState.AVAILABLE, digest=DIGEST, environment=environment
    )
    catalogue = Catalogue(
        writer="w", epoch=1, models=[CatalogueModel(name="m", versions=[version])]
    )
    return Node(node_id="n", boot_id="b", table=RouteTable("champion").with_catalogue(catalogue))


def interpreter(of: Node, key: ReplicaKey) -> str | None:
    return Versions(of, Path(), WorkerLimits(1, 1, 1, 1))._environment(key).python


def test_ours_unless_the_catalogue_names_its_own() -> None:
    key = ReplicaKey("m", 1, DIGEST)
    assert interpreter(node(Environment()), key) is None
    own = Environment(kind="own", python=PYTHON, digest="abc")
    assert interpreter(node(own), key) == PYTHON


def test_never_ours_where_its_own_is_not_built() -> None:
    with pytest.raises(LoadError, match="not built"):
        interpreter(node(Environment(kind="own")), ReplicaKey("m", 1, DIGEST))


def test_ours_for_what_is_served_and_no_longer_listed() -> None:
    assert interpreter(node(Environment()), ReplicaKey("gone", 1, DIGEST)) is None


class Recorder:
    """A launcher that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def launch(self, *interpreter: str) -> None:
        self.asked.append(interpreter)


async def test_each_interpreter_has_its_launcher() -> None:
    shared, own = Recorder(), Recorder()
    launchers = Launchers(shared, own)  # type: ignore[arg-type]  # stand-ins
    await launchers.launch(None)
    await launchers.launch(PYTHON)
    assert (shared.asked, own.asked) == ([()], [(PYTHON,)])
