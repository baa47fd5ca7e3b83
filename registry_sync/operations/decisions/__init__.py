"""Decisions of operators: rollback, pin, freeze, quarantine, and another try."""

from registry_sync.operations.decisions.pinning import freeze, frozen, pin, unfreeze, unpin
from registry_sync.operations.decisions.quarantine import accept, read_quarantines, release
from registry_sync.operations.decisions.retry import retry
from registry_sync.operations.decisions.rollback import roll_back

__all__ = [
    "accept",
    "freeze",
    "frozen",
    "pin",
    "read_quarantines",
    "release",
    "retry",
    "roll_back",
    "unfreeze",
    "unpin",
]
