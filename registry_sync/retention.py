"""Which artifacts may go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Kept:
    """What must stay, by reason; all are digests.

    Attributes:
        active: What an alias points at on the gateway.
        standby: What is staged or being staged, or wanted by a waiting caller.
        previous: What an alias left, to the epoch seconds when it left.
        last_known_good: The last healthy activation of each alias that somebody has, or had lately.
        aspired: Targets of the registry's aliases.
        held: Targets of holds and operators' pins.
    """

    active: AbstractSet[str] = frozenset()
    standby: AbstractSet[str] = frozenset()
    previous: Mapping[str, float] = field(default_factory=dict)
    last_known_good: AbstractSet[str] = frozenset()
    aspired: AbstractSet[str] = frozenset()
    held: AbstractSet[str] = frozenset()


def removable(
    stored: Iterable[str], kept: Kept, *, now: float, rollback_window_s: float
) -> frozenset[str]:
    """Return the stored digests that nothing needs.

    Args:
        stored: Every digest in the store.
        kept: What must stay.
        now: Epoch seconds.
        rollback_window_s: How long what an alias left is kept.
    """
    recent = {
        digest for digest, left_at in kept.previous.items() if now - left_at < rollback_window_s
    }
    needed = recent.union(kept.active, kept.standby, kept.last_known_good, kept.aspired, kept.held)
    return frozenset(stored) - needed
