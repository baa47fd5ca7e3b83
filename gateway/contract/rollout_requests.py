"""Changes of a node: stage, activate, retire and allow; and their answers, the ack and the nack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from gateway.contract.body import Alias, AliasBody, ArtifactBody, Body, Digest, ModelName


class StageRequest(ArtifactBody):
    """Start a standby of this version, verify its bytes, warm it. Idempotent by ``stage_id``.

    Attributes:
        alias: The alias to activate afterwards, or None.
        replaces: The version that the standby is to replace. It ends before the standby is ready
            only if the tags ask for that and no other alias will mean it.
        keep: Whether eviction spares the warm replica until the activation. If not, it becomes the
            least recently used resident.
    """

    stage_id: str = Field(min_length=1, max_length=64)
    alias: Alias | None = None
    replaces: PositiveInt | None = None
    keep: bool = True


class AliasTarget(Body):
    """The version that an alias points at; both fields are None if it is not active."""

    version: PositiveInt | None = None
    digest: Digest | None = None


class ActivateRequest(AliasBody, ArtifactBody):
    """Point an alias at a version.

    Attributes:
        if_active: The target of the alias before the move; if it is another, the request is refused
            with ``generation_mismatch``.
        stage_id: The stage that warmed this version; required unless the version is resident or was
            staged by this gateway before.
        asked_by: The initiator: ``poll``, ``webhook``, ``sync``, ``operator``, ``recovery``.
    """

    if_active: AliasTarget
    stage_id: str | None = None
    asked_by: str = "poll"


class RetireRequest(Body):
    """Remove an alias, or dismiss a standby.

    Attributes:
        stage_id: The stage of a standby that will not be activated. Its replica becomes an ordinary
            resident at once.
    """

    model: ModelName
    alias: Alias | None = None
    stage_id: str | None = None


NackCode = Literal[
    "contract_version",
    "stale_epoch",
    "generation_mismatch",
    "unknown_model",
    "unknown_version",
    "digest_mismatch",
    "not_staged",
    "digest_refused",
    "draining",
    "invalid_request",
    "table_write_failed",
]


class Nack(Body):
    """A refusal with its reason. The node is as before.

    Attributes:
        generation: The present generation of the route table.
    """

    code: NackCode
    message: str
    generation: int | None = None


StageFailure = Literal[
    "integrity",
    "unsupported",
    "load_failed",
    "warm_up_failed",
    "unavailable",
    "no_room",
    "timeout",
    "worker_died",
    "worker_crashed",
    "worker_not_started",
    "environment_missing",
    "stopped",
    "internal_error",
]
"""Why a stage failed.

``unavailable``: the model's code met a fault of the network or the disk, or the copy could not be
read. ``worker_died``: the process was killed, or ended in an unknown way. ``worker_crashed``: it
ended itself in each of several tries, by a fault or with an exit status. ``worker_not_started``: no
process was started. ``environment_missing``: the model's own interpreter is missing, or not built
yet. ``stopped``: the gateway ended the load. ``internal_error``: a fault of the gateway.
"""


PERMANENT_STAGE_FAILURES: frozenset[StageFailure] = frozenset(
    {"integrity", "unsupported", "load_failed", "warm_up_failed", "worker_crashed"}
)
"""Failures that the same bytes would have again. After others, the stage is tried again."""
NODE_FAILURES: frozenset[StageFailure] = frozenset(
    {
        "unavailable",
        "no_room",
        "worker_not_started",
        "environment_missing",
        "stopped",
        "internal_error",
    }
)
"""Failures of the node or of what surrounds it, which say nothing about the version."""


class StageOutcome(ArtifactBody):
    """The outcome of a stage.

    Attributes:
        failure: Its failure, or None if the version is warm and may be activated.
        message: The reason for the failure, as a sentence.
        durations_s: Seconds by phase: ``start``, ``verify``, ``load``, ``warm_up``.
    """

    stage_id: str
    failure: StageFailure | None = None
    message: str | None = None
    durations_s: dict[str, float] = Field(default_factory=dict)


class AllowRequest(AliasBody):
    """Let an alias take these bytes again. Has no effect if they are not refused."""

    digest: Digest


class Ack(Body):
    """The gateway's consent to a change. The change of the route table is on disk.

    Attributes:
        generation: The present generation of the route table; an alias that moved did so with it.
    """

    generation: int
