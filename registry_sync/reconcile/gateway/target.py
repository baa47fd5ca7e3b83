"""What the control plane needs from a data plane."""

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
    """The gateway did not answer: it is down, starting, or stuck. Asked again later."""


class ServingTarget(Protocol):
    """One node's data plane, as `gateway.control_contract` describes it.

    Event loop only. Every wait has a limit. Every method raises `TargetUnreachableError` when
    nobody answers, and `RolloutRejectedError` when the answer is no.
    """

    async def publish(self, catalogue: Catalogue) -> Ack:
        """Send the full snapshot of the registry."""
        ...

    async def change(self, change: ModelChange) -> Ack:
        """Send one model of the snapshot as it is now."""
        ...

    async def keep(self, unchanged: UnchangedCatalogue) -> Ack:
        """Say that the registry was listed again, and that the snapshot of this epoch holds."""
        ...

    async def stage(self, request: StageRequest) -> Ack:
        """Ask for a standby. Returns at once; the outcome is an event of `observe`."""
        ...

    async def activate(self, request: ActivateRequest) -> Ack:
        """Point an alias at a version. Asking again for what is so already is acknowledged."""
        ...

    async def retire(self, request: RetireRequest) -> Ack:
        """Take an alias or a standby away. What is not there is fine."""
        ...

    async def allow(self, request: AllowRequest) -> Ack:
        """Let an alias take a digest again that an automatic rollback refused it."""
        ...

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        """Wait, at most 25 s, until the node's state has another number than ``after``.

        With ``of``, the boot id of the state with that number, the answer may be the difference.
        """
        ...
