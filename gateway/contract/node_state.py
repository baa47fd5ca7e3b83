"""The state of a node, the answer of ``observe``: active aliases, wanted versions, events."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from gateway.contract.body import (
    CONTRACT_VERSION,
    Alias,
    AliasBody,
    ArtifactBody,
    Body,
    Digest,
    Initiator,
    ModelName,
)
from gateway.contract.catalogue import Environment, Policy
from gateway.contract.references import ArtifactRef
from gateway.contract.rollout_requests import StageOutcome, StageRequest

OBSERVE_TIMEOUT_S = 25.0


class Event(Body):
    """Something that happened on the node; ``seq`` numbers all changes of its state."""

    seq: int
    stage: StageOutcome


class ActiveAlias(AliasBody, ArtifactBody):
    """The active version of an alias on this node, and its previous version.

    Attributes:
        asked_by: The initiator, as in `ActivateRequest`, or ``gateway`` of an automatic rollback.
        environment: The environment of these bytes if no catalogue describes them any longer,
            since the version was deleted or made anew, or None if the catalogue has it.
        policy: The policy of these bytes in the same case, or None if the catalogue has it.
    """

    since: float
    previous_version: PositiveInt | None = None
    previous_digest: Digest | None = None
    asked_by: Initiator | None = None
    environment: Environment | None = None
    policy: Policy | None = None

    @property
    def previous_ref(self) -> ArtifactRef | None:
        """The previous version and its bytes, or None."""
        if self.previous_version is None or self.previous_digest is None:
            return None
        return ArtifactRef(self.model, self.previous_version, self.previous_digest)


class RefusedDigest(AliasBody):
    """Bytes that an alias must not take after an automatic rollback.

    The gateway keeps this on disk until the control plane allows the bytes again, and refuses their
    activation with ``digest_refused``.

    Attributes:
        digest: The digest of the bytes.
        reason: The reason, as a sentence for users.
        version: The version of the bytes. An older gateway wrote neither this nor the rest.
        since: Epoch seconds of the rollback.
        to_version: The version that the alias was rolled back to.
        to_digest: The digest of that version.
        generation: The generation of the route table with the rollback.
    """

    digest: Digest
    reason: str
    version: PositiveInt | None = None
    since: float = 0.0
    to_version: PositiveInt | None = None
    to_digest: Digest | None = None
    generation: int = 0


class AwaitedVersion(Body):
    """A version that a caller waits for: its bytes are not here, or its alias is not active.

    Attributes:
        alias: The inactive alias that is to mean the version, or None if the caller named the
            version.
    """

    model: ModelName
    version: PositiveInt
    since: float
    alias: Alias | None = None


class AbandonedVersion(Body):
    """A former `AwaitedVersion` for which no caller waits any longer."""

    model: ModelName
    version: PositiveInt
    alias: Alias | None = None


class DamagedCopy(ArtifactBody):
    """A copy in the artifact store that was altered or missing when a worker was to load it.

    Attributes:
        at: Epoch seconds when the damage was last found.
        reason: The damage, as a sentence.
    """

    at: float
    reason: str


class DamagedFile(Body):
    """A file of the node's folder that the gateway could not use, found since its start.

    Attributes:
        name: The name of the file.
        at: Epoch seconds when the damage was found.
        reason: What is wrong with it, as the end of a sentence that begins with "it".
        instead: The replacement of the content and the loss, as a sentence.
        set_aside: The name under which it is kept, or None if it is missing or was not renamed.
    """

    name: str
    at: float
    reason: str
    instead: str
    set_aside: str | None = None


class EvictionCost(Body):
    """The waits that the limit of one setting has cost callers in the last ten minutes.

    Attributes:
        setting: The gateway's setting, such as ``GATEWAY_MAX_RESIDENT``.
        requests: Requests that waited for a version which had been evicted.
        longest_wait_s: The longest wait, in seconds.
    """

    setting: str
    requests: int
    longest_wait_s: float


class Residency(Body):
    """How full the resident set is, and what its evictions have cost.

    Attributes:
        workers: Workers of any state, of at most ``worker_limit``.
        memory_bytes: Their private memory, of at most ``memory_limit_bytes``.
    """

    workers: int
    worker_limit: int
    memory_bytes: int
    memory_limit_bytes: int
    eviction_costs: list[EvictionCost] = Field(default_factory=list)


class NodeState(Body):
    """The state of the node. ``seq`` is the ``after`` of the next request.

    Attributes:
        boot_id: New with every start of the gateway; stages end with it.
        since: The ``seq`` that a difference follows, or None if this state is complete. In a
            difference, ``active`` has only the aliases that moved and ``inactive`` those that were
            retired, ``wanted`` only the new awaited versions and ``unwanted`` the abandoned ones,
            and ``resident`` is empty. All other fields are complete.
        catalogue_writer: The writer of the node's catalogue, or None if the control plane must
            send one, since the gateway has just started.
        resident: Versions with a worker or waiting for one: sorted, without duplicates, bounded by
            ``GATEWAY_MAX_RESIDENT`` and its queue. A change of it alone does not end the long poll.
        residency: How full the resident set is, or None of an older gateway. A change of it alone
            does not end the long poll.
        refused_digests: Bytes that may not be activated after automatic rollbacks. The control
            plane records the rollbacks from here.
        damaged: Copies to fetch again, until a new one was fetched or loaded. Bounded.
        damaged_files: The files that the gateway could not use since its start, each once.
        libraries: A mark of the libraries of shared workers, which changes when they do.
    """

    node_id: str
    boot_id: str
    contract_version: int = CONTRACT_VERSION
    seq: int
    generation: int
    catalogue_writer: str | None = None
    catalogue_epoch: int | None = None
    since: int | None = None
    active: list[ActiveAlias] = Field(default_factory=list)
    inactive: list[AliasBody] = Field(default_factory=list)
    standbys: list[StageRequest] = Field(default_factory=list)
    wanted: list[AwaitedVersion] = Field(default_factory=list)
    unwanted: list[AbandonedVersion] = Field(default_factory=list)
    resident: list[Digest] = Field(default_factory=list)
    residency: Residency | None = None
    refused_digests: list[RefusedDigest] = Field(default_factory=list)
    damaged: list[DamagedCopy] = Field(default_factory=list)
    damaged_files: list[DamagedFile] = Field(default_factory=list)
    libraries: str | None = None
    events: list[Event] = Field(default_factory=list)
