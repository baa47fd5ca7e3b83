"""Decisions of operators: each is recorded and answered at once, with its explanation.

No decision waits for its outcome. A decision that is known to be impossible is refused, and changes
nothing.
"""

from registry_sync.operations.decisions.freezing import (
    freeze as freeze,
    read_freeze as read_freeze,
    unfreeze as unfreeze,
)
from registry_sync.operations.decisions.pinning import pin as pin, unpin as unpin
from registry_sync.operations.decisions.quarantine import (
    accept as accept,
    read_quarantines as read_quarantines,
    retry_quarantine as retry_quarantine,
)
from registry_sync.operations.decisions.retry import retry as retry
from registry_sync.operations.decisions.rollback import roll_back as roll_back
from registry_sync.operations.decisions.sync import sync as sync
