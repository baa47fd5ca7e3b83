"""Costs of recent evictions: requests that waited for a version which had been evicted.

A set that is too small for its traffic loads the same models again and again. The waits, and the
limit that caused them, show which setting would help. Event loop only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

COUNT, BYTES = "GATEWAY_MAX_RESIDENT", "GATEWAY_MAX_RESIDENT_BYTES"
"""The settings whose limits evict."""
WINDOW_S = 600.0
_STEP_S = 10.0
_WORTH_A_LINE = 10
"""Requests that waited within the window. A few are the price of a bounded set."""
_log = structlog.get_logger("gateway.serving.residency.eviction_costs")


@dataclass(frozen=True, slots=True)
class EvictionCost:
    """The requests that waited lately because of one setting, and the longest wait in seconds."""

    setting: str
    requests: int = 0
    longest_wait_s: float = 0.0

    def with_wait(self, requests: int, longest_wait_s: float) -> EvictionCost:
        """Return the cost with more waits."""
        return EvictionCost(
            self.setting, self.requests + requests, max(self.longest_wait_s, longest_wait_s)
        )


class EvictionCosts:
    """The costs of the last ten minutes; ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._steps: dict[tuple[str, float], EvictionCost] = {}
        self._quiet_until: dict[str, float] = {}

    def add(self, setting: str, requests: int, longest_wait_s: float) -> None:
        """Count requests whose wait has ended; log once in a while if there are many."""
        now = self._clock()
        step = (setting, now // _STEP_S)
        self._steps[step] = self._steps.get(step, EvictionCost(setting)).with_wait(
            requests, longest_wait_s
        )
        cost = next(one for one in self.lately() if one.setting == setting)
        if cost.requests >= _WORTH_A_LINE and now >= self._quiet_until.get(setting, now):
            self._quiet_until[setting] = now + WINDOW_S
            _log.warning(
                "eviction.cost_callers",
                setting=setting,
                requests=cost.requests,
                longest_wait_s=round(cost.longest_wait_s, 3),
                reason=f"within {WINDOW_S / 60:g} minutes {cost.requests} requests waited for "
                f"models that had been evicted: raise {setting}, or call fewer models here",
            )

    def lately(self) -> list[EvictionCost]:
        """Return the costs of each setting that has cost something lately."""
        oldest = (self._clock() - WINDOW_S) // _STEP_S
        self._steps = {step: cost for step, cost in self._steps.items() if step[1] > oldest}
        sums: dict[str, EvictionCost] = {}
        for (setting, _), cost in self._steps.items():
            before = sums.get(setting, EvictionCost(setting))
            sums[setting] = before.with_wait(cost.requests, cost.longest_wait_s)
        return list(sums.values())
