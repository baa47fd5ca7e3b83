"""What callers may read of a reason names nothing of this node's neighbours; operators read all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.contract.catalogue import VersionState
from gateway.system.logs.redaction import for_public, remember_names
from registry_sync.domain.aspired import AspiredModel, AspiredVersion
from registry_sync.errors import SourceError, error_text
from registry_sync.settings import SyncSettings
from registry_sync.sources.storage.location import ScratchFolder
from registry_sync.sources.storage.resolve import open_location
from tests.fakes.nodes import A, M, NodeInMemory, polled
from tests.fakes.operating import asking
from tests.fakes.waiting import becomes

REGISTRY = "registry01 did not answer: registry01 is down"
LOCATION = "s3://models-prod/team-a/churn/1"
PLACE = "models-prod refuses team-a/churn/1/model.pkl"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    remember_names(())


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    made = NodeInMemory(tmp_path)
    made.registry.publish(M, 1)
    made.registry.models[M] = AspiredModel(
        name=M,
        versions={1: AspiredVersion(M, 1, location=LOCATION)},
        aliases={A: 1},
        problems=("the folder at registry01 was left out",),
    )
    made.registry.files[LOCATION] = {}
    made.registry.fetch_error = SourceError(PLACE)
    return made


def _state(node: NodeInMemory) -> VersionState | None:
    listed = node.gateway.version(M, 1)
    return listed.state if listed else None


async def test_the_gateway_is_told_no_names_and_operators_are(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_names({"registry01"})
    async with node.control_plane() as spine, asking(node, spine) as client:
        await becomes(lambda: _state(node) is VersionState.FAILED, "it is not fetched")

        def refuse(*_: object) -> None:
            raise SourceError(REGISTRY)

        monkeypatch.setattr(node.registry, "aspired", refuse)
        await polled(spine)
        await becomes(
            lambda: node.gateway.catalogue and node.gateway.catalogue.source_error, "it is told"
        )
        state = (await client.get("/state")).text
    assert node.gateway.catalogue is not None
    told = node.gateway.catalogue.model_dump_json()
    assert "[name] did not answer: [name] is down" in told
    assert "[name] refuses [name]/model.pkl" in told
    assert [one for one in ("registry01", "models-prod", "team-a") if one in told] == []
    assert REGISTRY in state
    assert PLACE in state


def test_the_names_of_the_settings_are_withheld(tmp_path: Path) -> None:
    settings = SyncSettings(
        tracking_uri="s3://models-prod/registry-a",
        database_url=SecretStr("postgresql+psycopg://node:pa/ss@ledger-db:5432/x"),
        node_dir=tmp_path / "node-a",
        runtime_dir=tmp_path / "run-a",
    )
    assert {"models-prod", "registry-a", "ledger-db"} < settings.names
    assert {str(tmp_path / "node-a"), str(tmp_path / "run-a")} < settings.names
    assert SyncSettings(tracking_uri="http://registry01:5000").names > {"registry01"}


def test_forbidden_uri_is_redacted_too() -> None:
    """A place that may not be asked is named in no reason either."""
    with pytest.raises(Exception, match="not fetched") as refused:
        open_location(
            "https://registry02/a/b/c",
            tracking_uri="http://registry01",
            s3=lambda: pytest.fail("nothing is asked"),
            scratch=ScratchFolder(),
        )
    assert "registry02" not in for_public(f"{error_text(refused.value)}: registry02 failed")
