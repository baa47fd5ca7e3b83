"""What needs no authentication names no host, port, bucket or path of this system."""

import asyncio
from typing import Any

import pytest

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    Policy,
    VersionState,
)
from gateway.contract.node_state import ActiveAlias, RefusedDigest
from gateway.contract.references import ArtifactRef
from gateway.errors import (
    GatewayError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
    VersionQuarantinedError,
)
from gateway.http.problems import problem
from gateway.routing import node as nodes
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.residency.load_history import LoadHistory
from tests.unit.gateway.http.test_catalogue import pages_of

DIGEST = "sha256:" + "a" * 64
REASON = (
    "the objects at s3://inner-bucket/models could not be read: EndpointConnectionError: Could not "
    'connect to the endpoint URL: "http://inner-host:9000/inner-bucket?X-Amz-Signature=c4nary" '
    "(/inner/path/artifacts: Bearer c4nary+token)"
)
INNER = ("inner", "9000", "c4nary")
SHOWN = "the objects at [address] could not be read: EndpointConnectionError"


def named(text: str) -> list[str]:
    return [one for one in INNER if one in text]


def catalogue() -> Catalogue:
    versions = [
        CatalogueVersion(version=number, state=state, reason=REASON)
        for number, state in enumerate(VersionState, 1)
    ]
    own = Environment(kind="own", python="/inner/path/environments/x/bin/python", digest="x")
    required = "churn-features @ https://inner-host:9000/churn.whl"
    description = {
        "requirements": [required],
        "dependency_verdict": {"status": "refuse", "mismatches": [f"{required} is not installed"]},
    }
    versions[0] = versions[0].model_copy(
        update={"digest": DIGEST, "environment": own, "description": description}
    )
    model = CatalogueModel(
        name="churn",
        versions=versions,
        aliases={"champion": 3, "noted": 2, "changed": 1, "back": 4},
        notes={"noted": REASON},
        signature_changes={"changed": REASON},
        policy=Policy(problems=[REASON]),
    )
    return Catalogue(writer="w", epoch=1, models=[model], source_error=REASON)


async def test_pages_about_models_name_nothing_of_the_inside() -> None:
    active = ActiveAlias(
        model="churn", alias="warned", version=1, digest=DIGEST, since=1.0, generation=1
    )
    hold = RefusedDigest(
        model="churn", alias="back", version=4, digest=DIGEST, target_version=1,
        target_digest=DIGEST, at=1.0, reason=REASON,
    )  # fmt: skip
    table = RouteTable(
        "champion",
        catalogue=catalogue(),
        active={active.alias_ref: active},
        refused_digests=(hold,),
    )
    node = Node(node_id="n", boot_id="b", table=table)
    node.warnings[active.alias_ref] = REASON
    load_history = LoadHistory()
    load_history.load_failed(ArtifactRef("churn", 1, DIGEST), LoadError("load_failed", REASON))
    pages = ["/models", "/models/churn", *(f"/models/churn/versions/{n}" for n in (1, 2, 3, 4))]
    async with pages_of(node, load_history) as client:
        for page in pages:
            answer = await client.get(page)
            assert answer.status_code == 200
            assert SHOWN in answer.text, page
            assert named(answer.text) == [], page


@pytest.mark.parametrize("kind", [ModelLoadFailedError, VersionQuarantinedError, ModelLoadingError])
def test_problems_name_nothing_of_the_inside(kind: type[GatewayError]) -> None:
    shown: Any = problem(kind(f"version 3 of churn could not be fetched: {REASON}"), "id")
    assert SHOWN in shown["detail"]
    assert named(str(shown)) == []


def test_what_a_worker_says_of_a_failed_load_holds_no_secret() -> None:
    said = LoadError("load_failed", REASON)
    assert "c4nary" not in said.message
    assert "c4nary" not in str(said)
    assert "inner-host:9000" in said.message  # its operators need that


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def node_of(clock: Clock, *models: CatalogueModel) -> Node:
    """A node whose catalogue has some models."""
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=list(models)))
    return Node(node_id="n", boot_id="b", table=table, clock=clock, monotonic=clock)


class TestWanted:
    """Versions that callers wait for."""

    def test_it_is_listed_once_and_the_oldest_first_until_it_is_wanted_no_more(self) -> None:
        clock = Clock()
        node = node_of(clock)
        for version in (2, 1, 2):
            node.want("m", version)
            clock.now += 1
        assert [(one.version, one.since) for one in node.wanted()] == [(2, 1000.0), (1, 1001.0)]
        seq = node.seq
        node.unwant("m", 2)
        node.unwant("m", 2)
        assert [one.version for one in node.wanted()] == [1]
        assert node.seq == seq + 1
        node.unwant("m", 1)
        assert node._wanted_of == {}

    def test_it_is_kept_while_the_catalogue_does_not_list_the_version(self) -> None:
        node = node_of(Clock(), CatalogueModel(name="m", versions=[]))
        node.want("m", 1)
        node.replace(RouteTable("champion", catalogue=Catalogue(writer="w", epoch=2, models=[])))
        assert len(node.wanted()) == 1

    def test_it_is_met_by_the_bytes_or_by_the_alias(self) -> None:
        node = node_of(Clock())
        node.want("m", 1)
        node.want("m", 1, "champion")
        node.want("m", 2)
        here = [CatalogueVersion(version=1, state=VersionState.AVAILABLE, digest=DIGEST)]
        listed = CatalogueModel(name="m", versions=here)
        table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[listed]))
        node.replace(table)
        assert [(one.version, one.alias) for one in node.wanted()] == [(1, "champion"), (2, None)]
        node.replace(table.with_active(active_of("m", "champion")))
        assert [(one.version, one.alias) for one in node.wanted()] == [(2, None)]

    def test_one_more_waits_for_those_before_it_by_the_pace_of_the_last_ones(self) -> None:
        clock = Clock()
        node = node_of(clock)
        for version in range(1, 6):
            node.want("m", version)
        assert node.queue_s() == 6
        for version in (1, 2, 3):
            node.replace(node.table.with_active(active_of("m", f"a{version}")))
            versions = [
                CatalogueVersion(version=number, state=VersionState.AVAILABLE, digest=DIGEST)
                for number in range(1, version + 1)
            ]
            listed = Catalogue(
                writer="w", epoch=1, models=[CatalogueModel(name="m", versions=versions)]
            )
            node.replace(RouteTable("champion", catalogue=listed))
            clock.now += 10
            if version == 2:
                assert node.queue_s() == 40, "three are left, and each took ten seconds"
        assert node.queue_s() == 30


async def test_next_table_wakes_its_callers() -> None:
    node = node_of(Clock())
    waiting = asyncio.ensure_future(node.next_table())
    await asyncio.sleep(0)
    node.replace(node.table, news=False)
    async with asyncio.timeout(10):
        await waiting


class TestSilence:
    """The control plane is silent after 15 s without a poll."""

    def test_it_is_silent_beyond_its_time_and_not_before(self) -> None:
        clock = Clock()
        node = node_of(clock)
        clock.now += 15
        assert not node.control_plane_silent
        clock.now += 1
        assert node.control_plane_silent

    def test_it_is_not_while_it_listens_and_has_its_time_after_that(self) -> None:
        clock = Clock()
        node = node_of(clock)
        node.listening(1)
        clock.now += 100
        assert not node.control_plane_silent
        node.listening(-1)
        assert not node.control_plane_silent
        clock.now += 16
        assert node.control_plane_silent


def test_so_many_damaged_copies_are_remembered_and_the_oldest_is_left_out() -> None:
    node = node_of(Clock())
    digests = [f"sha256:{number:064x}" for number in range(nodes._MAX_DAMAGED + 1)]
    for digest in digests[:-1]:
        node.copy_damaged(ArtifactRef("m", 1, digest), "a file is missing")
    assert [one.digest for one in node.damaged()] == digests[:-1]
    node.copy_damaged(ArtifactRef("m", 1, digests[-1]), "a file is missing")
    assert [one.digest for one in node.damaged()] == digests[1:]


def active_of(model: str, alias: str) -> ActiveAlias:
    return ActiveAlias(model=model, alias=alias, version=1, digest=DIGEST, since=1.0, generation=1)
