"""Decisions of operators: each is recorded and answered at once, with its explanation.

No decision waits for its outcome. One that cannot be carried out is refused, if that is known, and
nothing changes.
"""

from registry_sync.operations.decisions.freezing import freeze, read_freeze, unfreeze
from registry_sync.operations.decisions.pinning import pin, unpin
from registry_sync.operations.decisions.quarantine import accept, read_quarantines, retry_quarantine
from registry_sync.operations.decisions.retry import retry
from registry_sync.operations.decisions.rollback import roll_back
from registry_sync.operations.decisions.sync import sync

__all__ = [
    "accept",
    "freeze",
    "pin",
    "read_freeze",
    "read_quarantines",
    "retry",
    "retry_quarantine",
    "roll_back",
    "sync",
    "unfreeze",
    "unpin",
]
