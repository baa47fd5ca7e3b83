"""What needs no authentication names no host, port, bucket or path of this system."""

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
from gateway.contract.node_state import ActiveAlias, AliasHold
from gateway.contract.references import ReplicaKey
from gateway.errors import (
    GatewayError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
    VersionQuarantinedError,
)
from gateway.http.problems import problem
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.residency.load_history import TrackRecord
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
    hold = AliasHold(
        model="churn", alias="back", version=4, digest=DIGEST, target_version=1,
        target_digest=DIGEST, at=1.0, reason=REASON,
    )  # fmt: skip
    table = RouteTable(
        "champion",
        catalogue=catalogue(),
        active={("churn", "warned"): active},
        holds=(hold,),
    )
    node = Node(node_id="n", boot_id="b", table=table)
    node.warnings["churn", "warned"] = REASON
    track_record = TrackRecord()
    track_record.load_failed(ReplicaKey("churn", 1, DIGEST), REASON)
    pages = ["/models", "/models/churn", *(f"/models/churn/versions/{n}" for n in (1, 2, 3, 4))]
    async with pages_of(node, track_record) as client:
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
