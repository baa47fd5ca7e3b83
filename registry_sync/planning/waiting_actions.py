"""Due actions that have not begun, most urgent first, by kind of step."""

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

    ``WAITS``: for its next try, a step under way, or another action of its model; after that the
    model is planned again.
    """

    BEGUN = "begun"
    WAITS = "waits"
    NO_SLOT = "no slot"


class DueActions:
    """Keeps actions that found no slot, so that a free slot needs no plan of all models.

    Event loop only. Bounded by the due actions of the known models.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[Action, int]] = {}
        self._queues: defaultdict[type, list[tuple[int, int, Action]]] = defaultdict(list)
        self._requested: dict[Subject, Action] = {}
        self._numbers = count()
        self._due = 0

    def request(self, action: Action) -> None:
        """Add an action that stays due until it has begun, whatever `put` gets."""
        self._requested[subject_of(action)] = action

    def requested(self) -> Mapping[Subject, Action]:
        """Return the requested actions that have not begun, by subject."""
        return self._requested

    def put(self, model: str, actions: Iterable[Action]) -> None:
        """Replace the due actions of a model; actions that were due before keep their turn.

        Requested actions stay, and replace planned ones of the same subject.
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
        """Remove entries that are no longer due: they pile up while the first finds no slot."""
        if sum(map(len, self._queues.values())) <= 2 * self._due + _FEW:
            return
        for kind, queue in self._queues.items():
            self._queues[kind] = [one for one in queue if self._is_due(one)]
            heapq.heapify(self._queues[kind])

    def _is_due(self, entry: tuple[int, int, Action]) -> bool:
        _, number, action = entry
        return self._of.get(action.model, {}).get(action) == number

    def models(self) -> frozenset[str]:
        """Return the models with due actions."""
        return frozenset(self._of)

    def begin(self, start: Callable[[Action], StartOutcome]) -> list[Action]:
        """Start actions while slots are free; return those that have begun."""
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
