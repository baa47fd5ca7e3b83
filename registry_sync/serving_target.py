"""What the control plane needs from a data plane."""

from __future__ import annotations

from typing import Protocol

from gateway.control_contract import (
    ActivateAck,
    ActivateRequest,
    Catalogue,
    CatalogueAck,
    NodeState,
    ReleaseAck,
    ReleaseRequest,
    RetireAck,
    RetireRequest,
    StageAck,
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

    async def publish(self, catalogue: Catalogue) -> CatalogueAck:
        """Send the full snapshot of the registry."""
        ...

    async def keep(self, unchanged: UnchangedCatalogue) -> CatalogueAck:
        """Say that the registry was listed again, and that the snapshot of this epoch holds."""
        ...

    async def stage(self, request: StageRequest) -> StageAck:
        """Ask for a standby. Returns at once; the outcome is an event of `observe`."""
        ...

    async def activate(self, request: ActivateRequest) -> ActivateAck:
        """Point an alias at a version. Asking again for what is so already is acknowledged."""
        ...

    async def retire(self, request: RetireRequest) -> RetireAck:
        """Take an alias away, or end a version. What is not there is fine."""
        ...

    async def release(self, request: ReleaseRequest) -> ReleaseAck:
        """Let an alias take again what it went back from by rule. What is not held is fine."""
        ...

    async def observe(self, after: int) -> NodeState:
        """Wait, at most 25 s, until the node's state has another number than ``after``."""
        ...
