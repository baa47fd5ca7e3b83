"""The spine with models that are to be there from the start, or only when somebody calls."""

from dataclasses import replace
from pathlib import Path

from gateway.contract.catalogue import VersionState
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.operating import listening
from tests.fakes.waiting import becomes


def tag(node: NodeInMemory, **tags: str) -> None:
    said = {f"gateway.{name}": text for name, text in tags.items()}
    node.registry.models[M] = replace(node.registry.models[M], tags=said)


def told(spine: Reconciler) -> list[tuple[str, str]]:
    return [(one.action, one.outcome) for one in reversed(spine.ledger.attempts_of(M))]


async def test_an_on_demand_alias_becomes_active_when_somebody_calls_it(node: NodeInMemory) -> None:
    tag(node, load="on_demand")
    async with node.control_plane() as spine:
        await node.shows(1, VersionState.REGISTERED)
        await idle(spine)
        assert node.registry.fetched == []
        node.gateway.want(M, 1)
        await node.settles_at(1)
        assert [(s.keep, s.replaces) for s in node.gateway.stages] == [(False, None)]
        assert told(spine) == [
            ("fetch", "complete"),
            ("stage", "complete"),
            ("activate", "complete"),
        ]
        # What serves is replaced as ever, without anybody's call.
        await node.promotes(2)
        await node.serves(2)
        assert [(s.keep, s.replaces) for s in node.gateway.stages[1:]] == [(True, 1)]


async def test_an_on_demand_fetch_that_fails_is_tried_again_for_the_next_caller(
    node: NodeInMemory,
) -> None:
    tag(node, load="on_demand")
    async with node.control_plane() as spine:
        await node.shows(1, VersionState.REGISTERED)
        files = node.registry.files.pop(f"fake:/{M}/1")
        node.gateway.want(M, 1)
        await node.shows(1, VersionState.FAILED)
        node.gateway.wanted.clear()  # the caller has been told, and left
        node.gateway._changed()
        await node.shows(1, VersionState.REGISTERED)
        await idle(spine)
        node.registry.files[f"fake:/{M}/1"] = files
        node.gateway.want(M, 1)
        await node.serves(1)


async def test_on_demand_is_said_and_nobody_waits_for_it(node: NodeInMemory) -> None:
    tag(node, load="on_demand")
    async with node.control_plane() as spine, listening(node, spine) as command:
        await node.shows(1, VersionState.REGISTERED)
        asked = await command("sync", M)
        assert asked.exit_code == 0, asked.output
        for words in (("status",), ("explain", M, "@champion")):
            shown = await command(*words)
            assert "version 1 is fetched when it is called" in " ".join(shown.output.split())


async def test_a_preloaded_version_stands_by_warm_until_its_alias_means_it(
    node: NodeInMemory,
) -> None:
    tag(node, load="preload")
    node.gateway.stages_wait = True
    async with node.control_plane():
        await becomes(lambda: node.gateway.stages, "version 1 is staged")
        (staged,) = node.gateway.stages
        assert (staged.version, staged.keep, staged.replaces) == (1, True, None)
        node.gateway.stages_wait = False
        node.gateway.end_stage(staged)
        await node.settles_at(1)
        (activated,) = node.gateway.activations
        assert activated.stage_id == staged.stage_id
        assert node.gateway.standbys == {}


async def test_aliases_of_one_preloaded_version_come_up_together_without_a_failure(
    node: NodeInMemory,
) -> None:
    tag(node, load="preload")
    for alias in ("a", "b", "c"):
        node.registry.point(M, alias, 1)
    async with node.control_plane() as spine:
        for alias in (A, "a", "b", "c"):
            await node.serves(1, alias)
        await idle(spine)
        assert node.gateway.standbys == {}
        assert len(node.gateway.stages) == 1
        assert {outcome for _, outcome in told(spine)} == {"complete"}


async def test_what_is_wrong_with_tags_reaches_the_gateway(node: NodeInMemory) -> None:
    tag(node, laod="preload", replicas="many")
    async with node.following(1):
        assert node.gateway.catalogue is not None
        (model,) = node.gateway.catalogue.models
        assert model.policy.problems == [
            "the tag gateway.laod is unknown, and ignored: did you mean gateway.load?",
            "the tag gateway.replicas is ignored: it must be a whole number from 1 to 64",
        ]


async def test_model_of_a_waiting_caller_is_recovered_before_others(tmp_path: Path) -> None:
    node = NodeInMemory(tmp_path)
    names = [f"m{number:03}" for number in range(40)]
    for name in names:
        node.registry.publish(name, 1, latest=False)
        node.registry.point(name, A, 1)
    async with node.control_plane() as spine:
        await becomes(lambda: len(node.gateway.active) == len(names), "all are active")
        await idle(spine)
    node.gateway.restart(lose_table=True)
    node.gateway.stages_wait = True
    asked = len(node.gateway.stages)
    async with node.control_plane() as spine:
        await becomes(lambda: len(node.gateway.stages) > asked + 3, "the first ones are staged")
        node.gateway.wanted["m039", 1] = 1.0
        node.gateway.wanted_for["m039", 1] = A
        node.gateway._changed()
        await becomes(lambda: spine.observation.state_of("m039").wanted != [], "it is heard")  # type: ignore[union-attr]
        node.gateway.stages_wait = False
        for one in node.gateway.stages[asked:]:
            node.gateway.end_stage(one)
        await becomes(lambda: node.gateway.points("m039", A) == 1, "it is active")
        before = [one.model for one in node.gateway.activations[len(names) :]]
        assert before.index("m039") < 12, before
