"""Actions that are due and have not begun, most urgent first, by kind of step."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import count

from registry_sync.planning.actions import Action, Subject, subject_of

_FEW = 1000


class StartOutcome(Enum):
    """The outcome of starting an action.

    ``WAITS``: for its next try, for a step under way, or for another action of its model; its model
    is planned again then.
    """

    BEGUN = "begun"
    WAITS = "waits"
    NO_SLOT = "no slot"


class DueActions:
    """Keeps what found no slot, so that a slot that is free is given away without a plan of all.

    Event loop only. Bounded by what is due of the models that there are.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._of: dict[str, dict[Action, int]] = {}
        self._queues: defaultdict[type, list[tuple[int, int, Action]]] = defaultdict(list)
        self._requested: dict[Subject, Action] = {}
        self._numbers = count()
        self._due = 0

    def request(self, action: Action) -> None:
        """Let this be due of its model until it has begun, whatever else is put."""
        self._requested[subject_of(action)] = action

    def requested(self) -> Mapping[Subject, Action]:
        """Return what was requested and has not begun, by what it is about."""
        return self._requested

    def put(self, model: str, actions: Iterable[Action]) -> None:
        """Let this be due of a model, and what was requested; what was due before keeps its turn.

        What was requested comes before what is planned for the same subject.
        """
        before, now = self._of.get(model, {}), dict[Action, int]()
        requested = [one for one in self._requested.values() if one.model == model]
        planned = (one for one in actions if subject_of(one) not in self._requested)
        for action in (*requested, *planned):
            number = before.get(action)
            if number is None:
                number = next(self._numbers)
                heapq.heappush(self._queues[type(action)], (action.urgency, number, action))
            now[action] = number
        self._due += len(now) - len(before)
        self._of[model] = now
        if not now:
            del self._of[model]
        self._clear_away()

    def _clear_away(self) -> None:
        """Keep what is due no more from piling up behind what finds no slot for long."""
        if sum(map(len, self._queues.values())) <= 2 * self._due + _FEW:
            return
        for kind, queue in self._queues.items():
            self._queues[kind] = [one for one in queue if self._is_due(one)]
            heapq.heapify(self._queues[kind])

    def _is_due(self, entry: tuple[int, int, Action]) -> bool:
        _, number, action = entry
        return self._of.get(action.model, {}).get(action) == number

    def models(self) -> frozenset[str]:
        """Return the models of which something is due."""
        return frozenset(self._of)

    def begin(self, start: Callable[[Action], StartOutcome]) -> list[Action]:
        """Begin with as many as there are slots for; return those that have begun."""
        begun: list[Action] = []
        for queue in self._queues.values():
            while queue:
                action = queue[0][2]
                if self._is_due(queue[0]):
                    became = start(action)
                    if became is StartOutcome.NO_SLOT:
                        break
                    if became is StartOutcome.BEGUN:
                        begun.append(action)
                        self._requested = {
                            of: one for of, one in self._requested.items() if one != action
                        }
                    self._forget(action)
                heapq.heappop(queue)
        return begun

    def _forget(self, action: Action) -> None:
        of_model = self._of[action.model]
        del of_model[action]
        self._due -= 1
        if not of_model:
            del self._of[action.model]
