"""The input of one model's plan, at a cost that depends on that model alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.contract import NodeState
from registry_sync.domain import SignaturePolicy, window_state
from registry_sync.planning import Snapshot
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps import Backoff, EnvironmentStep
from registry_sync.reconcile.view.signature_cache import Signatures

_NEVER_OBSERVED = NodeState(node_id="", boot_id="", seq=0, generation=0)


@dataclass
class Snapshots:
    """Takes snapshots for the plan."""

    context: Context
    environment_step: EnvironmentStep
    signatures: Signatures
    backoff: Backoff

    def of(self, model: str) -> Snapshot:
        """Return the input of one model's plan, as it is now."""
        everything, view = self.context.listings.aspired, self.context.journal.view_of(model)
        listed = everything.models.get(model)
        node = self.context.observation.state_of(model) or _NEVER_OBSERVED
        digests = {
            *(one.digest for one in view.accepted.values()),
            *(hold.target_digest for hold in view.holds.values()),
            *(last.digest for last in view.last_active.values()),
            *(one.digest for one in node.active),
        }
        stored = [
            self.context.artifacts[digest] for digest in digests if digest in self.context.artifacts
        ]
        return Snapshot(
            aspired=replace(everything, models={model: listed} if listed else {}, marks={}),
            listings=self.context.listings.count,
            lists_any=bool(everything.models),
            node=node,
            ledger=view,
            stored=self.context.artifacts.keys(),
            proved=self.context.observation.proved,
            require_digest=self.context.policy.require_digest,
            initiators=self.context.listings.initiators(model),
            environments=self.environment_step.built.keys(),
            refused=self.environment_step.refused(stored),
            signature_change=self.signatures.between,
            refuses_signatures=self.context.policy.on_signature_change is SignaturePolicy.REFUSE,
            rollback_since=self.context.clock() - self.context.limits.room.rollback_retention_s,
            failure=self.backoff.get,
            promotions_act_at=window_state(
                self.context.limits.windows, self.context.clock()
            ).opens_at,
        )
