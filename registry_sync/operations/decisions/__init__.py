"""Decisions of operators: each is recorded and answered at once, with what the node does about it.

No decision waits for its outcome. A decision that cannot be carried out, as is known at once, is
refused, and nothing changes.
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
