"""The state of a node as ``observe`` answers it: active aliases, wanted versions, events."""

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
    """Where an alias points on this node. ``previous`` is what it pointed at before.

    Attributes:
        asked_by: The initiator, as in `ActivateRequest`, or ``gateway`` of an automatic rollback.
        environment: The environment that workers of these bytes run under once no catalogue
            describes the bytes any more: the version is gone, or was made anew. None: the
            catalogue says it.
        policy: The policy of these bytes, from the same moment on. None: the catalogue says it.
    """

    since: float
    previous_version: PositiveInt | None = None
    previous_digest: Digest | None = None
    asked_by: Initiator | None = None
    environment: Environment | None = None
    policy: Policy | None = None

    @property
    def previous_ref(self) -> ArtifactRef | None:
        """The version that the alias pointed at before and its bytes, or None."""
        if self.previous_version is None or self.previous_digest is None:
            return None
        return ArtifactRef(self.model, self.previous_version, self.previous_digest)


class RefusedDigest(AliasBody):
    """Bytes that an alias must not take, since an automatic rollback left them.

    The gateway keeps it on disk until the control plane allows the bytes again, and refuses their
    activation with ``digest_refused``.

    Attributes:
        digest: The bytes.
        reason: The reason, as a sentence for users.
        version: The version of the bytes; an older gateway wrote neither this nor what follows.
        since: Epoch seconds of the rollback.
        to_version: The version that the alias was rolled back to.
        to_digest: Its bytes.
        generation: Of the route table with the rollback.
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
        alias: The alias that is not active yet, and is to mean the version; None: the caller named
            the version.
    """

    model: ModelName
    version: PositiveInt
    since: float
    alias: Alias | None = None


class AbandonedVersion(Body):
    """What `AwaitedVersion` named, and no caller waits for any more."""

    model: ModelName
    version: PositiveInt
    alias: Alias | None = None


class DamagedCopy(ArtifactBody):
    """A copy in the artifact store that was found altered or missing when it was to be loaded.

    Attributes:
        model: For which version it was to be loaded.
        at: Epoch seconds when that was found last.
        reason: What was found, as a sentence.
    """

    at: float
    reason: str


class DamagedFile(Body):
    """A file of the node's folder that the gateway could not use, found since its start.

    Attributes:
        name: Of the file.
        at: Epoch seconds when that was found.
        reason: What is wrong with it, as the end of a sentence that begins with "it".
        instead: What the gateway goes on with, and what is lost, as a sentence.
        set_aside: The name under which it is kept; None: it is gone, or could not be renamed.
    """

    name: str
    at: float
    reason: str
    instead: str
    set_aside: str | None = None


class NodeState(Body):
    """What the node serves now. ``seq`` is what to pass as ``after`` next time.

    Attributes:
        boot_id: New with every start of the gateway: stages do not outlive it.
        since: Of a difference, the ``seq`` that it follows: ``active`` has the aliases that moved
            since, ``inactive`` those that are gone; ``wanted`` what came to be wanted, ``unwanted``
            what is no more; and ``resident`` nothing. All else is whole. None: all is whole, as
            from an older gateway.
        catalogue_writer: Whose catalogue the node has, with which epoch; None: none since boot,
            so the control plane should send one.
        resident: What has a worker, or waits for one, whoever called it: sorted, each once, and
            as many as ``GATEWAY_MAX_RESIDENT`` and the queue before it allow. It is as it was when
            this answer was made: a change of it alone is no news.
        refused_digests: Bytes that automatic rollbacks left, until they are allowed again. The
            control plane records the rollbacks from here.
        damaged: Copies to drop and to fetch again, until one has come or was loaded. Bounded.
        damaged_files: What the gateway could not use of its own files since its start, each file
            once.
        libraries: A mark of what is installed for its shared workers: another one, after a start
            with other libraries.
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
    refused_digests: list[RefusedDigest] = Field(default_factory=list)
    damaged: list[DamagedCopy] = Field(default_factory=list)
    damaged_files: list[DamagedFile] = Field(default_factory=list)
    libraries: str | None = None
    events: list[Event] = Field(default_factory=list)
