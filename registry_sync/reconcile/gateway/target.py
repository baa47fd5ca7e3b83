"""The port through which the control plane drives a data plane."""

from __future__ import annotations

from typing import Protocol

from gateway.contract import (
    Ack,
    ActivateRequest,
    AllowRequest,
    Catalogue,
    ModelChange,
    NodeState,
    RetireRequest,
    StageRequest,
    UnchangedCatalogue,
)
from registry_sync.errors import SyncError


class TargetUnreachableError(SyncError):
    """The gateway did not answer: it is down, starting, or stuck. A later call may succeed."""


class ServingTarget(Protocol):
    """One node's data plane, as `gateway.contract` describes it.

    Event loop only. Every wait has a limit. Every method raises `TargetUnreachableError` if the
    gateway does not answer, and `RolloutRejectedError` if it refuses.
    """

    async def publish(self, catalogue: Catalogue) -> Ack:
        """Send the full snapshot of the registry."""
        ...

    async def change(self, change: ModelChange) -> Ack:
        """Send one model of the snapshot as it is now."""
        ...

    async def keep(self, unchanged: UnchangedCatalogue) -> Ack:
        """Confirm the snapshot of this epoch after a listing without changes."""
        ...

    async def stage(self, request: StageRequest) -> Ack:
        """Request a standby. Returns at once; the outcome is an event of `observe`."""
        ...

    async def activate(self, request: ActivateRequest) -> Ack:
        """Point an alias at a version. Idempotent."""
        ...

    async def retire(self, request: RetireRequest) -> Ack:
        """Retire an alias or a standby. Idempotent."""
        ...

    async def allow(self, request: AllowRequest) -> Ack:
        """Allow an alias a digest that an automatic rollback refused."""
        ...

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        """Return the node's state once its number is not ``after``, or after 25 s at most.

        With ``of``, the boot id of the state with that number, the answer may be the difference.
        """
        ...
