"""Who is waited for goes first, at every step up to the activation."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.contract.node_state import NodeState, Wanted
from registry_sync.domain import LedgerView
from registry_sync.planning.actions import Action, Activate, Fetch, Stage, Urgency
from registry_sync.planning.plan import plan
from registry_sync.planning.snapshot import World
from tests.fakes.gateway import becomes
from tests.fakes.nodes import NodeInMemory, idle
from tests.unit.registry_sync.planning.plan.test_plan import Case, D, M, hold, last, pins, world

A = "champion"


def wished(case: Case, alias: str | None) -> World:
    made = world(case)
    wish = Wanted(model=M, version=1, since=1.0, alias=alias)
    return replace(made, node=made.node.model_copy(update={"wanted": [wish]}))


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (Case("its bytes are not here", [], {A: 1}), Fetch),
        (Case("they are here", [], {A: 1}, here=(1,)), Stage),
        (Case("it was staged", [], {A: 1}, here=(1,), proved=(1,)), Activate),
    ],
    ids=lambda one: one.why if isinstance(one, Case) else one.__name__,
)
def test_a_caller_raises_every_step(case: Case, kind: type[Action]) -> None:
    (action,) = plan(wished(case, A))
    assert isinstance(action, kind)
    assert action.urgency is Urgency.WANTED
    (other,) = plan(world(case))
    assert other.urgency > Urgency.WANTED


def test_a_caller_by_number_raises_the_fetch_alone() -> None:
    case = Case("", [], {A: 1}, here=(1,))
    assert plan(wished(case, None)) == plan(world(case))
    assert plan(wished(Case("", [], {A: 1}), None))[0].urgency is Urgency.WANTED


def test_after_a_lost_table_too() -> None:
    """What each alias was at comes back, that of a caller who waits before all others."""
    case = Case("", [], {A: 1}, here=(1,))
    made = wished(case, A)
    node = NodeState(node_id="n", boot_id="new", seq=1, generation=0, wanted=made.node.wanted)
    lost = replace(made, node=node, ledger=LedgerView(accepted=pins(1)), proved={})
    (action,) = plan(lost)
    assert (type(action), action.urgency) == (Stage, Urgency.WANTED)
    assert action.digest == D[1]  # type: ignore[union-attr]


def wished_for_2(case: Case, ledger: LedgerView) -> World:
    """Let a caller wait for the alias; the wish names the version that the catalogue has."""
    made = world(case)
    wish = Wanted(model=M, version=2, since=1.0, alias=A)
    node = made.node.model_copy(update={"wanted": [wish]})
    return replace(made, node=node, ledger=replace(ledger, accepted=pins(1, 2)))


def test_a_held_alias_comes_first_too_wherever_the_registry_points_it() -> None:
    held = LedgerView(holds=hold(at=2, target=1))
    (action,) = plan(wished_for_2(Case("", [], {A: 2}, here=(1, 2)), held))
    assert (type(action), action.urgency) == (Stage, Urgency.WANTED)
    assert action.digest == D[1]  # type: ignore[union-attr]


def test_what_a_lost_table_had_comes_first_while_the_registrys_version_is_fetched() -> None:
    lost = LedgerView(last_active=last(1))
    actions = plan(wished_for_2(Case("", [], {A: 2}, here=(1,)), lost))
    assert [(type(one), one.urgency) for one in actions] == [
        (Fetch, Urgency.WANTED),
        (Stage, Urgency.WANTED),
    ]


async def test_the_last_of_many_comes_first_where_a_caller_waits(tmp_path: Path) -> None:
    node = NodeInMemory(tmp_path)
    names = [f"m{number:03}" for number in range(40)]
    for name in names:
        node.registry.publish(name, 1)
        node.registry.without_latest(name)
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
