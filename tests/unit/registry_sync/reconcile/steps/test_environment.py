"""The spine with versions that ask for an environment of their own, or may not run in ours."""

from dataclasses import replace

import pytest

from gateway.contract.catalogue import Environment, VersionState
from gateway.contract.references import AliasRef
from registry_sync.artifacts.environments.compatibility import MismatchPolicy
from registry_sync.errors import EnvironmentFailedError
from tests.fakes.callers import table_of
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled

TAG = "gateway.environment"


def tag_version(node: NodeInMemory, version: int, value: str) -> None:
    model = node.registry.models[M]
    tagged = replace(model.versions[version], tags={TAG: value})
    node.registry.models[M] = replace(model, versions={**model.versions, version: tagged})


async def test_an_environment_is_built_between_fetch_and_stage(node: NodeInMemory) -> None:
    tag_version(node, 1, "own")
    async with node.at_rest(1) as spine:
        entry = node.entry(1)
        assert entry.environment.kind == "own"
        assert entry.environment.python == f"/environments/{entry.environment.digest}/python"
        assert entry.description is not None
        assert entry.description["dependency_verdict"]["status"] == "ok"
        assert node.entry(2).environment == Environment()
        steps = [a.action for a in reversed(spine.ledger.attempts_of(M))]
        assert steps == ["fetch", "environment", "stage", "activate"]
    async with node.control_plane() as spine:  # it is there already
        await idle(spine)
        assert node.environments.asked == 1


async def test_a_build_that_cannot_succeed_rejects_the_version_until_the_tag_goes(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine:
        tag_version(node, 2, "own")
        node.registry.point(M, A, 2)
        node.environments.error = EnvironmentFailedError("no such package: zzz")
        await spine.poll()
        await node.shows(2, VersionState.FAILED)
        await idle(spine)
        entry = node.entry(2)
        assert entry.digest is None
        assert "no such package: zzz" in str(entry.reason)
        assert node.gateway.points(M, A) == 1
        assert node.environments.asked == 1
        tag_version(node, 2, "shared")
        await spine.poll()
        await node.serves(2)


async def test_a_build_that_fails_for_now_is_tried_again(node: NodeInMemory) -> None:
    tag_version(node, 1, "own")
    node.environments.error = EnvironmentFailedError("no index", transient=True)
    async with node.control_plane() as spine:
        await node.shows(1, VersionState.FAILED)
        assert node.entry(1).reason == "no index"
        assert spine.journal.view.rejections == {}
        node.environments.error = None
        await node.serves(1)


async def test_an_environment_outlives_the_registrys_memory_of_its_version(
    node: NodeInMemory,
) -> None:
    tag_version(node, 1, "own")
    async with node.following(1) as spine:
        model = node.registry.models[M]
        node.registry.models[M] = replace(model, versions={2: model.versions[2]}, aliases={A: 2})
        await spine.poll()
        await node.shows(1, VersionState.DELETED)
        assert node.entry(1).environment.kind == "own"


async def test_what_requires_other_libraries_is_refused_where_that_is_set(
    node: NodeInMemory,
) -> None:
    async with node.control_plane():
        await node.serves(1)
    node.registry.files[f"fake:/{M}/2"]["requirements.txt"] = b"no-such-package==3\n"
    node.registry.point(M, A, 2)
    node.on_mismatch = MismatchPolicy.REFUSE
    async with node.control_plane() as spine:
        await node.shows(2, VersionState.FAILED)
        entry = node.entry(2)
        assert "no-such-package (not here, required ==3)" in str(entry.reason)
        assert entry.description is not None
        assert entry.description["dependency_verdict"]["status"] == "refuse"
        await node.stays_at(1)
        tag_version(node, 2, "own")
        await spine.poll()
        await node.serves(2)
    node.on_mismatch = MismatchPolicy.WARN


async def test_the_sweep_removes_an_environment_that_no_artifact_means(node: NodeInMemory) -> None:
    tag_version(node, 1, "own")
    async with node.following(1) as spine:
        await spine.environment_step.sweep(spine.artifacts.values(), older_than_s=0)
        assert len(node.environments.there) == len(spine.environment_step.built) == 1
        await spine.environment_step.sweep([], older_than_s=0)
        assert not node.environments.there
        assert not spine.environment_step.built


def serving_environment(node: NodeInMemory) -> Environment:
    """The environment of a worker of the bytes that serve the alias."""
    table = table_of(node.gateway)
    return table.environment_of(table.active[AliasRef(M, A)].ref)


@pytest.mark.parametrize(
    ("before", "after"), [("own", "shared"), ("shared", "own"), ("own", "own")]
)
@pytest.mark.parametrize("fault", ["unreadable", "rejected"])
async def test_a_predecessor_keeps_its_environment_while_its_successor_does_not_come(
    node: NodeInMemory, before: str, after: str, fault: str
) -> None:
    tag_version(node, 1, before)
    async with node.at_rest(1) as spine:
        digest, environment = node.gateway.active[AliasRef(M, A)].digest, serving_environment(node)
        assert environment.kind == before
        node.registry.make_anew(M, 1)
        if fault == "unreadable":
            node.registry.spoil(M, 1)
        else:
            node.gateway.fails[M, 1] = ("warm_up_failed", "it answers nonsense")
        node.registry.without_latest(M)
        node.registry.point(M, A, 1)
        tag_version(node, 1, after)
        await polled(spine)
        assert node.gateway.active[AliasRef(M, A)].digest == digest
        assert serving_environment(node) == environment


async def test_a_copy_that_goes_on_while_its_version_is_altered_keeps_its_environment(
    node: NodeInMemory,
) -> None:
    tag_version(node, 1, "own")
    async with node.at_rest(1) as spine:
        environment = serving_environment(node)
        node.registry.stamp(M, 1, "sha256:" + "e" * 64)
        tag_version(node, 1, "own")
        await polled(spine)
        assert node.entry(1).digest is None
        assert serving_environment(node) == environment
