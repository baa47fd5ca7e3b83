"""What is damaged in the artifact store comes anew, alone; without a registry, that is said."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.contract.catalogue import VersionState
from gateway.contract.references import parse_selector
from registry_sync.artifacts.environments.recipe import OwnEnvironment
from registry_sync.artifacts.environments.uv_job import Check
from registry_sync.artifacts.store import StoredArtifact
from registry_sync.domain.operation_bodies import State
from registry_sync.operations.explained_model import explain_model
from registry_sync.operations.state import state_document
from tests.contracts.damage import DAMAGES, Damage
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled, promoted
from tests.fakes.waiting import becomes


def parts(node: NodeInMemory, version: int) -> dict[str, Path]:
    folder = node.folder / "artifacts" / node.registry.digest(M, version).removeprefix("sha256:")
    return {
        "record": folder.with_name(f"{folder.name}.json"),
        "manifest": folder.with_name(f"{folder.name}.manifest"),
        "folder": folder,
    }


def lose(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


LOSSES = [
    *(pytest.param("record", one, id=f"record {one}") for one in DAMAGES),
    pytest.param("record", Damage("gone", lambda path: path.unlink()), id="record gone"),
    pytest.param("manifest", Damage("gone", lambda path: path.unlink()), id="manifest gone"),
    pytest.param("folder", Damage("gone", lose), id="folder gone"),
]


def fetches(node: NodeInMemory, version: int) -> int:
    return node.registry.fetched.count(f"fake:/{M}/{version}")


async def told(node: NodeInMemory) -> State:
    document = await state_document(node.view, node_id="node", tracking_uri="fake:/")
    return State.model_validate_json(document)


async def both_here(node: NodeInMemory) -> None:
    """Have the bytes of two versions here, the first one active."""
    async with node.following(1) as spine:
        node.registry.point(M, "shadow", 2)
        await spine.poll()
        await node.serves(2, "shadow")
        await idle(spine)


@pytest.mark.parametrize(("part", "damage"), LOSSES)
async def test_what_serves_is_fetched_again_and_nothing_else(
    node: NodeInMemory, part: str, damage: Damage
) -> None:
    await both_here(node)
    before = fetches(node, 1), fetches(node, 2)
    damage.apply(parts(node, 1)[part])
    async with node.control_plane() as spine:
        await becomes(lambda: fetches(node, 1) == before[0] + 1, "the bytes are fetched again")
        await node.shows(1, VersionState.AVAILABLE)
        await idle(spine)
        assert spine.store.compare(node.registry.digest(M, 1), lambda: None) is None
        assert (fetches(node, 1), fetches(node, 2)) == (before[0] + 1, before[1])
        assert (node.gateway.points(M, A), node.gateway.points(M, "shadow")) == (1, 2)
        assert not spine.journal.view.quarantines
        assert not spine.journal.view.rejections
        assert not [one for one in (await told(node)).problems if "this node's copy" in one]


@pytest.mark.parametrize(("part", "damage"), [LOSSES[0], *LOSSES[-3:]])
async def test_without_a_registry_it_is_said(node: NodeInMemory, part: str, damage: Damage) -> None:
    await both_here(node)
    damage.apply(parts(node, 1)[part])
    node.registry.down = True
    node.gateway.restart()
    said = f"this node's copy is damaged: its {part}"

    async def is_said_of_the_version() -> bool:
        found = await explain_model(node.view, M, parse_selector("1"))
        entry = node.gateway.version(M, 1)
        by_gateway = (entry.reason if entry else None) or ""
        ours = f"is damaged: its {part}"
        return ours in by_gateway and ours in found.selectors[0].reason

    async with node.control_plane() as spine:
        await node.shows(2, VersionState.AVAILABLE)
        while not await is_said_of_the_version():
            await spine.next_decision()  # it is tried again now and then
        state = await told(node)
        (problem,) = [one for one in state.problems if said in one]
        assert problem.startswith(f"{M}/1: ")
        assert problem.endswith("it is fetched again when the registry answers")
        aliases = {one.alias: one.reason for one in state.models[0].aliases}
        assert said in (aliases[A] or "")
        assert aliases["shadow"] is None
        found = await explain_model(node.view, M, parse_selector(f"@{A}"))
        assert said in found.selectors[0].reason
        lost = {part} if damage.name == "gone" else set()
        stays = {name for name, path in parts(node, 1).items() if path.exists()}
        assert stays == {"record", "manifest", "folder"} - lost, "it stays until it can come again"
        node.registry.down = False
        await spine.poll()
        await node.shows(1, VersionState.AVAILABLE)


async def test_what_the_registry_has_no_more_stays_and_is_said(node: NodeInMemory) -> None:
    await both_here(node)
    there = parts(node, 1)
    async with node.control_plane() as spine:
        assert await node.operators.freeze() is None
    there["manifest"].unlink()
    node.registry.forget(M)
    node.registry.publish("other", 1)
    async with node.control_plane() as spine:
        for _ in range(3):
            await spine.poll()
        await idle(spine)
        (problem,) = [one for one in (await told(node)).problems if "its manifest is gone" in one]
        assert "cannot be fetched again" in problem
        assert there["folder"].is_dir()
        assert node.gateway.points(M, A) == 1


async def test_a_bad_record_hides_no_other_from_retention(node: NodeInMemory) -> None:
    node.room = type(node.room)(rollback_retention_s=0.0)
    await both_here(node)
    node.registry.unpoint(M, "shadow")
    unneeded = parts(node, 2)["folder"]
    parts(node, 1)["record"].unlink()
    parts(node, 1)["record"].write_text("[" * 100_000)
    node.registry.down = True
    async with node.at_rest() as spine:
        node.registry.down = False
        node.registry.remove(M, 2)
        await spine.poll()
        await polled(spine)
        await node.plane.sweep.run()
        await becomes(lambda: not unneeded.exists(), "what nothing needs goes")
        await node.shows(1, VersionState.AVAILABLE)


async def test_a_damaged_artifact_that_nothing_needs_goes(node: NodeInMemory) -> None:
    await both_here(node)
    async with node.control_plane() as spine:
        node.registry.unpoint(M, "shadow")
        await spine.poll()
        await polled(spine)
    parts(node, 2)["record"].unlink()
    parts(node, 2)["record"].write_text("")
    before = fetches(node, 2)
    async with node.control_plane() as spine:
        await becomes(lambda: not parts(node, 2)["folder"].exists(), "its remains go")
        await idle(spine)
        assert fetches(node, 2) == before, "and it comes when it is asked for"
        assert (
            parts(node, 2)["record"]
            .with_name(f"{parts(node, 2)['record'].name}.damaged-1")
            .exists()
        )


async def test_no_environment_is_built_from_altered_bytes(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_here(node)
    known = node.registry.models[M]
    node.registry.models[M] = replace(known, tags={"gateway.environment": "own"})
    record = parts(node, 2)["folder"] / "MLmodel"
    record.chmod(0o644)
    record.write_bytes(record.read_bytes() + b"# altered\n")
    before = fetches(node, 2)
    built: list[str] = []
    build = node.environments.build

    def note(artifact: StoredArtifact, check: Check) -> OwnEnvironment:
        built.append((artifact.path / "MLmodel").read_text())
        return build(artifact, check)

    monkeypatch.setattr(node.environments, "build", note)
    async with node.control_plane():
        await promoted(node, 2)
    assert built
    assert not [text for text in built if "altered" in text]
    assert fetches(node, 2) == before + 1
