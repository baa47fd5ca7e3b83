"""What every `ServingTarget` does: the gateway in memory, and a real one behind its socket."""

import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    ModelChange,
    UnchangedCatalogue,
    VersionState,
)
from gateway.contract.rollout_requests import (
    ActivateRequest,
    AliasTarget,
    AllowRequest,
    RetireRequest,
    StageRequest,
)
from registry_sync.errors import RolloutRejectedError
from registry_sync.reconcile.gateway.client import GatewayClient
from registry_sync.reconcile.gateway.target import ServingTarget, TargetUnreachableError
from tests.fakes.gateway import FakeGateway
from tests.servers import clean_environ

MODEL = "fraud, v2?"
DIGEST = "sha256:" + "a" * 64
STOP_LIMIT_S = 60


@pytest.fixture(scope="module")
def gateway_socket() -> Iterator[Path]:
    """The control socket of a real gateway without any model."""
    folder = Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp"))
    settings = {"GATEWAY_NODE_DIR": str(folder), "GATEWAY_PORT": "0"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway"], env=clean_environ(settings), stderr=log, stdout=log
    )
    yield folder / "gateway.sock"
    process.terminate()
    status = process.wait(STOP_LIMIT_S)
    log.close()
    said = (folder / "log").read_text()
    shutil.rmtree(folder)
    assert status == 0, said


@pytest.fixture(params=["in memory", "over its socket"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[ServingTarget]:
    if request.param == "in memory":
        yield FakeGateway()
        return
    client = GatewayClient(request.getfixturevalue("gateway_socket"))
    await answers(client)
    yield client
    await client.close()


async def answers(target: ServingTarget) -> None:
    """Wait until the gateway has started."""
    import asyncio

    async with asyncio.timeout(60):
        while True:
            try:
                await target.observe(0)
            except TargetUnreachableError:
                await asyncio.sleep(0.05)
            else:
                return


def catalogue(epoch: int, writer: str) -> Catalogue:
    version = CatalogueVersion(version=1, state=VersionState.REGISTERED)
    model = CatalogueModel(name=MODEL, versions=[version], aliases={"champion": 1})
    return Catalogue(writer=writer, epoch=epoch, models=[model], listed_at=1.0)


async def test_a_catalogue_is_taken_once_and_seen(target: ServingTarget) -> None:
    writer = uuid.uuid4().hex
    before = await target.observe(0)
    await target.publish(catalogue(1, writer))
    after = await target.observe(before.seq)
    assert (after.catalogue_writer, after.catalogue_epoch) == (writer, 1)
    assert after.seq != before.seq
    with pytest.raises(RolloutRejectedError) as refused:
        await target.publish(catalogue(1, writer))
    assert refused.value.code == "stale_epoch"


async def test_a_catalogue_that_is_in_place_is_kept_and_any_other_is_asked_for(
    target: ServingTarget,
) -> None:
    writer = uuid.uuid4().hex
    await target.publish(catalogue(3, writer))
    before = await target.observe(0)
    await target.keep(UnchangedCatalogue(writer=writer, epoch=3, listed_at=9.0))
    after = await target.observe(0)
    assert after.seq == before.seq, "that is no news"
    assert (after.catalogue_writer, after.catalogue_epoch) == (writer, 3)
    for other in (
        UnchangedCatalogue(writer=writer, epoch=2),
        UnchangedCatalogue(writer="x", epoch=3),
    ):
        with pytest.raises(RolloutRejectedError) as refused:
            await target.keep(other)
        assert refused.value.code == "stale_epoch"


async def test_one_model_changes_within_the_snapshot_in_place(target: ServingTarget) -> None:
    writer = uuid.uuid4().hex
    await target.publish(catalogue(3, writer))
    model = catalogue(3, writer).models[0]
    change = ModelChange(writer=writer, epoch=3, revision=1, name=MODEL, model=model)
    await target.change(change)
    await target.change(change.model_copy(update={"revision": 2, "model": None}))
    await target.change(
        change.model_copy(update={"revision": 3, "name": "\u2713 %2F?", "model": None})
    )
    for other in ({"writer": "x"}, {"epoch": 2}):
        with pytest.raises(RolloutRejectedError) as refused:
            await target.change(change.model_copy(update=other))
        assert refused.value.code == "stale_epoch"


async def test_a_difference_is_told_to_who_has_the_state_before(target: ServingTarget) -> None:
    await target.publish(catalogue(1, uuid.uuid4().hex))
    before = await target.observe(0)
    assert before.since is None
    await target.publish(catalogue(1, uuid.uuid4().hex))
    after = await target.observe(before.seq, before.boot_id)
    assert (after.since, after.active, after.inactive) == (before.seq, [], [])
    assert (await target.observe(before.seq, "another")).since is None


async def test_what_was_not_staged_is_not_activated(target: ServingTarget) -> None:
    await target.publish(catalogue(1, uuid.uuid4().hex))
    request = ActivateRequest(
        model=MODEL, alias="champion", version=1, digest=DIGEST, if_active=AliasTarget()
    )
    with pytest.raises(RolloutRejectedError) as refused:
        await target.activate(request)
    assert refused.value.code == "not_staged"
    assert refused.value.reason
    assert (await target.observe(0)).active == []


async def test_a_change_on_another_table_is_refused(target: ServingTarget) -> None:
    other = AliasTarget(version=2, digest=DIGEST)
    request = ActivateRequest(
        model=MODEL, alias="champion", version=1, digest=DIGEST, if_active=other
    )
    with pytest.raises(RolloutRejectedError) as refused:
        await target.activate(request)
    assert refused.value.code == "generation_mismatch"


async def test_taking_away_what_is_not_there_is_fine(target: ServingTarget) -> None:
    before = await target.observe(0)
    for ack in (
        await target.retire(RetireRequest(model=MODEL, alias="nobody")),
        await target.retire(RetireRequest(model=MODEL, stage_id=uuid.uuid4().hex)),
        await target.allow(AllowRequest(model=MODEL, alias="champion", digest=DIGEST)),
    ):
        assert (ack.generation, before.refused_digests) == (before.generation, [])


async def test_the_outcome_of_a_stage_is_an_event_until_acknowledged(
    target: ServingTarget,
) -> None:
    if isinstance(target, FakeGateway):
        target.fails[MODEL, 1] = ("integrity", "the bytes are not there")
    before = await target.observe(0)
    stage_id = uuid.uuid4().hex
    request = StageRequest(stage_id=stage_id, model=MODEL, version=1, digest=DIGEST)
    await target.stage(request)
    await target.stage(request)
    seen = before.seq
    while True:
        state = await target.observe(seen)
        mine = [event for event in state.events if event.stage.stage_id == stage_id]
        if mine:
            break
        seen = state.seq
    assert [event.stage.failure is not None for event in mine] == [True]
    assert mine[0].stage.message
    again = await target.observe(mine[0].seq - 1)
    assert stage_id in {event.stage.stage_id for event in again.events}
    await target.publish(catalogue(1, uuid.uuid4().hex))
    acknowledged = await target.observe(mine[0].seq)
    assert stage_id not in {event.stage.stage_id for event in acknowledged.events}
    assert acknowledged.standbys == []


async def test_nobody_at_the_socket_is_an_error_of_its_own(tmp_path: Path) -> None:
    client = GatewayClient(tmp_path / "gateway.sock")
    with pytest.raises(TargetUnreachableError, match="is it running"):
        await client.observe(0)
    await client.close()
    fake = FakeGateway()
    fake.stop()
    with pytest.raises(TargetUnreachableError):
        await fake.observe(0)
