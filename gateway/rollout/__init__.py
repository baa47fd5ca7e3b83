"""Changes of this node: stage, activate, retire, release, and the automatic rollback."""

from gateway.rollout.automatic_rollback import AutomaticRollback
from gateway.rollout.live_comparison import Margins
from gateway.rollout.rollout import Rollout

__all__ = ["AutomaticRollback", "Margins", "Rollout"]
