"""What is due waits for a slot by its urgency, and its model is not planned again for that."""

from registry_sync.planning.actions import Action, Fetch, Stage, Urgency
from registry_sync.planning.waiting_actions import DueActions, StartOutcome


def fetch(model: str, urgency: Urgency = Urgency.PREFETCH, version: int = 1) -> Fetch:
    return Fetch(model, version, urgency)


def stage(model: str, urgency: Urgency = Urgency.FIRST) -> Stage:
    return Stage(model, "champion", 1, "d", keep=False, replaces=None, urgency=urgency, asked_by="")


class Slots:
    """So many actions begin; those of some models wait."""

    def __init__(self, count: int, waits: frozenset[str] = frozenset()) -> None:
        self.count = count
        self.waits = waits
        self.asked = 0

    def start(self, action: Action) -> StartOutcome:
        self.asked += 1
        if action.model in self.waits:
            return StartOutcome.WAITS
        if not self.count:
            return StartOutcome.NO_SLOT
        self.count -= 1
        return StartOutcome.BEGUN


def models(actions: list[Action]) -> list[str]:
    return [one.model for one in actions]


def test_the_most_urgent_begins_first_and_then_the_one_that_waits_longest() -> None:
    due = DueActions()
    for name in ("a", "b", "c"):
        due.put(name, [fetch(name)])
    due.put("k", [fetch("k", Urgency.WANTED)])
    due.put("b", [fetch("b", Urgency.PROMOTION)])
    assert models(due.begin(Slots(2).start)) == ["k", "b"]
    due.put("a", [fetch("a")])  # planned again to the same end: it keeps its turn
    due.put("0", [fetch("0")])
    assert models(due.begin(Slots(9).start)) == ["a", "c", "0"]
    assert due.models() == frozenset()


def test_what_is_due_no_more_does_not_begin() -> None:
    due = DueActions()
    due.put("a", [fetch("a"), fetch("a", version=2)])
    due.put("b", [fetch("b")])
    due.put("a", [fetch("a", version=2)])
    due.put("b", [])
    begun = due.begin(Slots(9).start)
    assert [(one.model, one.version) for one in begun if isinstance(one, Fetch)] == [("a", 2)]


def test_a_kind_without_a_slot_holds_up_no_other_kind() -> None:
    due = DueActions()
    due.put("a", [fetch("a"), stage("a")])
    slots = Slots(9)
    begun = due.begin(
        lambda one: StartOutcome.NO_SLOT if isinstance(one, Fetch) else slots.start(one)
    )
    assert [type(one) for one in begun] == [Stage]
    assert due.models() == {"a"}


def test_what_waits_for_another_reason_holds_up_no_other_model() -> None:
    due = DueActions()
    due.put("a", [fetch("a", Urgency.WANTED)])
    due.put("b", [fetch("b")])
    assert models(due.begin(Slots(9, frozenset({"a"})).start)) == ["b"]
    assert due.models() == frozenset(), "its model is planned again when the wait is over"
    due.put("a", [fetch("a", Urgency.WANTED)])
    assert models(due.begin(Slots(9).start)) == ["a"]


def test_what_is_over_does_not_pile_up_behind_what_finds_no_slot() -> None:
    due = DueActions()
    due.put("a", [fetch("a", Urgency.WANTED)])
    for version in range(1, 10_000):
        due.put("b", [fetch("b", version=version)])
        due.begin(lambda _: StartOutcome.NO_SLOT)
    assert sum(map(len, due._queues.values())) < 2000
    assert models(due.begin(Slots(9).start)) == ["a", "b"]


def test_what_was_due_together_and_is_over_is_cleared_away() -> None:
    due = DueActions()
    due.put("a", [fetch("a", version=version) for version in range(5000)])
    due.put("a", [])
    assert sum(map(len, due._queues.values())) == 0


def test_a_slot_costs_the_same_however_much_is_due() -> None:
    due = DueActions()
    for number in range(5000):
        due.put(f"m{number}", [fetch(f"m{number}")])
    slots = Slots(2)
    assert len(due.begin(slots.start)) == 2
    assert slots.asked == 3


def test_what_is_requested_stays_due_until_it_has_begun() -> None:
    due = DueActions()
    wanted = fetch("a", Urgency.WANTED, version=2)
    due.request(wanted)
    due.put("a", [fetch("a", version=2), fetch("a", version=1)])
    assert due.begin(Slots(0).start) == []
    due.put("a", [])
    assert due.models() == {"a"}, "whatever is planned"
    assert due.begin(Slots(9).start) == [wanted]
    assert not due.requested()
    due.put("a", [])
    assert due.models() == set()


def test_what_is_requested_and_waits_is_due_again_with_the_next_plan() -> None:
    due = DueActions()
    due.request(fetch("a"))
    due.put("a", [])
    assert due.begin(Slots(9, waits=frozenset({"a"})).start) == []
    due.put("a", [])
    assert models(due.begin(Slots(9).start)) == ["a"]
