"""Changes of a node: stage, activate, retire and allow; and their answers, the ack and the nack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from gateway.contract.body import Alias, AliasBody, ArtifactBody, Body, Digest, ModelName


class StageRequest(ArtifactBody):
    """Start a standby of this version, check its bytes, warm it. Idempotent by ``stage_id``.

    Attributes:
        alias: For which alias; None: for none in particular.
        replaces: The version that this one is to replace: ended before this one is ready only where
            its tags say so, and no other alias is to go on meaning it.
        keep: Keep the warmed replica for the activation; False: warm once, then it is an ordinary,
            least recently used member of the resident set.
    """

    stage_id: str = Field(min_length=1, max_length=64)
    alias: Alias | None = None
    replaces: PositiveInt | None = None
    keep: bool = True


class AliasTarget(Body):
    """What an alias points at; without a version: nothing."""

    version: PositiveInt | None = None
    digest: Digest | None = None


class ActivateRequest(AliasBody, ArtifactBody):
    """Point an alias at a version.

    Attributes:
        if_active: Refused with ``generation_mismatch`` unless the alias points there: other aliases
            may move meanwhile.
        stage_id: The stage that proved this version; required unless it is resident or was staged
            by this gateway before.
        asked_by: Who wants it: ``poll``, ``webhook``, ``sync``, ``operator``, ``recovery``.
    """

    if_active: AliasTarget
    stage_id: str | None = None
    asked_by: str = "poll"


class RetireRequest(Body):
    """Take an alias away, or spare a standby no longer.

    Attributes:
        stage_id: The standby that nobody is going to activate: it becomes an ordinary member of the
            resident set before its time is over.
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
    """No, and why. What was served before is served still.

    Attributes:
        generation: The table's generation now.
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
    "worker_not_started",
    "environment_missing",
    "stopped",
    "internal_error",
]
"""Why a version did not come up.

``unavailable`` is the network's, the disk's or the like, met by the model's own code, or a copy
that the node does not let be read. ``worker_died``: the process ended by itself or was killed;
``worker_not_started``: there was none; ``environment_missing``: the model's own interpreter is not
there (yet); ``stopped``: the gateway ended the load; ``internal_error``: a fault of the gateway.
"""


PERMANENT_STAGE_FAILURES: frozenset[StageFailure] = frozenset(
    {"integrity", "unsupported", "load_failed", "warm_up_failed"}
)
"""Failures that the same bytes would meet again. The others pass, and are tried again."""
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
    """How a stage ended.

    Attributes:
        failure: None: the version is warmed and may be activated.
        message: The reason, as a sentence.
        durations_s: Seconds by phase: ``start``, ``verify``, ``load``, ``warm_up``.
    """

    stage_id: str
    failure: StageFailure | None = None
    message: str | None = None
    durations_s: dict[str, float] = Field(default_factory=dict)


class AllowRequest(AliasBody):
    """Let an alias take these bytes again. Bytes that are not refused are fine."""

    digest: Digest


class Ack(Body):
    """The gateway did what was asked, now or before; its change of the route table is on disk.

    Attributes:
        generation: The table's generation now; an alias that moved did so with this one.
    """

    generation: int
