"""Changes of this node: stage, activate, retire, allow, and the automatic rollback."""

from gateway.rollout.automatic_rollback import AutomaticRollback as AutomaticRollback
from gateway.rollout.rollout import Rollout as Rollout
