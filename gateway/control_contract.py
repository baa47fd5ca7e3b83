"""What the control plane asks of a gateway and what it is answered: bodies of the control API.

HTTP on a Unix socket, JSON both ways:

=================================  =======================  ====================================
request                            body                     answer
=================================  =======================  ====================================
``PUT /catalogue``                 `Catalogue`              200 `CatalogueAck`; 409 stale epoch
``PUT /catalogue/models/{name}``   `ModelChange`            200 `CatalogueAck`; 409 stale epoch
``POST /catalogue/unchanged``      `UnchangedCatalogue`     200 `CatalogueAck`; 409 stale epoch
``POST /stage``                    `StageRequest`           202 `StageAck`; the result is an event
``POST /activate``                 `ActivateRequest`        200 `ActivateAck`; 409 `Nack`
``POST /retire``                   `RetireRequest`          200 `RetireAck`; 409 `Nack`
``POST /release``                  `ReleaseRequest`         200 `ReleaseAck`; 409 `Nack`
``GET /observe?after=seq&of=boot``  long poll, at most 25 s  200 `NodeState`
=================================  =======================  ====================================

Every refusal has a `Nack` as its body. ``observe?after=n`` also acknowledges every event up to n;
events that were not acknowledged are repeated. With ``of``, the boot id of the state that n came
with, the answer may be the difference from that state: see `NodeState.since`. Unknown fields are
ignored on both sides, so either plane may be the newer one; a newer ``contract_version`` is refused
with a sentence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from gateway.model_ref import parse_alias, parse_digest, parse_model_name

CONTRACT_VERSION = 1
OBSERVE_TIMEOUT_S = 25.0

ModelName = Annotated[str, AfterValidator(parse_model_name)]
Alias = Annotated[str, AfterValidator(parse_alias)]
Digest = Annotated[str, AfterValidator(parse_digest)]


class Body(BaseModel):
    """A body of the contract: immutable, tolerant of fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class VersionState(StrEnum):
    """What the control plane knows of a version.

    ``REGISTERED`` → ``FETCHING`` (on its way, or so new that its upload may go on) → ``AVAILABLE``
    (verified bytes are on this node), or ``FAILED`` (fetch or verification failed for now and is
    tried again), ``QUARANTINED`` (the bytes are wrong), ``DELETED`` (gone from the registry;
    answers while its bytes are kept).
    """

    REGISTERED = "registered"
    FETCHING = "fetching"
    AVAILABLE = "available"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    DELETED = "deleted"


class Environment(Body):
    """What a version's worker runs under.

    Attributes:
        kind: ``shared``: the gateway's interpreter and libraries; ``own``: built from the version's
            requirements.
        python: The own interpreter's path on this node; None: shared, or not built yet.
        digest: Of the normalised requirements and Python version of an own one that is built.
    """

    kind: Literal["shared", "own"] = "shared"
    python: str | None = None
    digest: str | None = None


class Policy(Body):
    """What ML engineers asked for by tags of a model, or of one of its versions. None: nothing.

    Words are not checked again: one that only a newer control plane knows is no reason to refuse
    a snapshot.

    Attributes:
        swap: How a version takes another one's place: ``blue_green``, ``unload_first``, ``auto``.
        load: When it is fetched and loaded: ``preload``, ``lazy``, ``on_demand``.
        replicas: How many workers of a version.
        pin: Whether it stays resident.
        timeout_s: Seconds for one request.
        max_batch_rows: The most rows that are joined into one call of the model.
        cache_ttl_s: Seconds for which an answer may be given again.
        environment: What its workers run under: ``shared``, ``own``.
        problems: On a model only: tags that could not be read or that nobody knows, those of its
            versions too, and whatever else could not be followed. Sentences for users, bounded.
    """

    swap: str | None = None
    load: str | None = None
    replicas: int | None = None
    pin: bool | None = None
    timeout_s: float | None = None
    max_batch_rows: int | None = None
    cache_ttl_s: float | None = None
    environment: str | None = None
    problems: list[str] = Field(default_factory=list)

    def with_own(self, own: Policy | None) -> Policy:
        """Return a model's policy as it is for a version that asks for something of its own."""
        if own is None:
            return self
        return self.model_copy(update=own.model_dump(exclude_none=True, exclude={"problems"}))


class CatalogueVersion(Body):
    """One registered version, as the control plane knows it.

    Attributes:
        digest: The verified artifact in the store of this node; None: its bytes are not here.
        expected_digest: What the publisher stamped, or what was pinned when first seen.
        accepted_digest: The bytes that were verified for this creation of the version, here or not:
            no others answer for its number; None: none were.
        stamped: Whether ``expected_digest`` comes from the publisher.
        rejected: Whether no alias may take it, because its load or warm-up failed here.
        reason: Why the state is what it is: shown to users, so a sentence.
        description: Flavor, loader, signature, frameworks, example; handed unread to the worker.
        retry_at: Epoch seconds of the next try, for ``FAILED`` and for an upload that may go on.
        size_bytes: Size of the artifact, where known.
        created_at: Epoch seconds of registration, where the source tells.
        environment: The environment that workers of its accepted bytes run under.
        policy: The policy that its own tags ask for; it goes before its model's. None: no tag
            asks for anything.
    """

    version: PositiveInt
    state: VersionState
    digest: Digest | None = None
    expected_digest: Digest | None = None
    accepted_digest: Digest | None = None
    stamped: bool = False
    rejected: bool = False
    reason: str | None = None
    description: dict[str, Any] | None = None
    retry_at: float | None = None
    size_bytes: int | None = None
    created_at: float | None = None
    environment: Environment = Environment()
    policy: Policy | None = None


class CatalogueModel(Body):
    """One registered model: its versions, where its aliases ought to point, its policy.

    Attributes:
        notes: Per alias, why it is kept where the registry does not want it: shown to users.
        signature_changes: Per alias, what it changes for its callers, or would: shown to users.
        remembered: Whether it is only what the control plane has accepted here before: the registry
            may have more of it. Only in a catalogue that is not complete.
    """

    name: ModelName
    versions: list[CatalogueVersion]
    aliases: dict[str, PositiveInt] = Field(default_factory=dict)
    notes: dict[str, str] = Field(default_factory=dict)
    signature_changes: dict[str, str] = Field(default_factory=dict)
    policy: Policy = Policy()
    default_alias: str | None = None
    remembered: bool = False


class Catalogue(Body):
    """Everything the registry lists: a full snapshot, sent when a gateway connects.

    Before the registry has been listed at all it is not complete: what it leaves out is not gone.
    What changes later is sent by model, as `ModelChange`.

    Attributes:
        writer: The control plane's boot id.
        epoch: Grows with every snapshot of one writer; an older one is refused.
        listed_at: Epoch seconds of the registry's answer behind this snapshot; None: never yet.
        source_error: Why the registry could not be listed last time; None: it could.
        complete: Whether the registry was listed, now or before. An older gateway takes every
            catalogue for complete: see `NodeState.partial_catalogues`.
    """

    contract_version: int = CONTRACT_VERSION
    writer: str
    epoch: int
    models: list[CatalogueModel]
    listed_at: float | None = None
    source_error: str | None = None
    complete: bool = True


class ModelChange(Body):
    """One model of a catalogue as it is now; the others are as they were.

    Attributes:
        writer: As of the snapshot that it changes.
        epoch: As of that snapshot: with another one in place, the change is refused.
        revision: Grows with every change of one snapshot; one that was taken is taken again.
        name: Which model.
        model: The model as it is; None: the catalogue lists it no more.
    """

    writer: str
    epoch: int
    revision: PositiveInt
    name: ModelName
    model: CatalogueModel | None


class UnchangedCatalogue(Body):
    """The registry was listed again, and what was sent with this epoch still says it all."""

    writer: str
    epoch: int
    listed_at: float | None = None
    source_error: str | None = None


class CatalogueAck(Body):
    """The catalogue was taken."""

    generation: int


class StageRequest(Body):
    """Start a standby of this version, check its bytes, warm it. Idempotent by ``stage_id``.

    Attributes:
        alias: For which alias; None: for none in particular.
        replaces: The version that this one is to replace: ended before this one is ready only where
            its tags say so, and no other alias is to go on meaning it.
        keep: Keep the warmed replica for the activation; False: warm once, then it is an ordinary,
            least recently used member of the resident set.
    """

    stage_id: str = Field(min_length=1, max_length=64)
    model: ModelName
    version: PositiveInt
    digest: Digest
    alias: Alias | None = None
    replaces: PositiveInt | None = None
    keep: bool = True


class StageAck(Body):
    """The stage is under way or done; its outcome comes, or came, as an event."""

    stage_id: str


class AliasTarget(Body):
    """What an alias points at; without a version: nothing."""

    version: PositiveInt | None = None
    digest: Digest | None = None


class ActivateRequest(Body):
    """Point an alias at a version.

    Attributes:
        if_generation: Refused with ``generation_mismatch`` unless the table has this generation;
            not asked where ``if_active`` is given, which an older gateway does not know.
        if_active: Refused with ``generation_mismatch`` unless the alias points there: other aliases
            may move meanwhile. None: ``if_generation`` says it.
        stage_id: The stage that proved this version; required unless it is resident or was staged
            by this gateway before.
        asked_by: Who wants it: ``poll``, ``webhook``, ``sync``, ``operator``, ``recovery``.
    """

    model: ModelName
    alias: Alias
    version: PositiveInt
    digest: Digest
    if_generation: int
    if_active: AliasTarget | None = None
    stage_id: str | None = None
    asked_by: str = "poll"


class ActivateAck(Body):
    """The alias has moved, and the table is on disk. ``previous`` is the version it left."""

    generation: int
    previous: PositiveInt | None = None


class RetireRequest(Body):
    """Take an alias away, end and forget a version, or spare a standby no longer.

    Attributes:
        stage_id: The standby that nobody is going to activate: it becomes an ordinary member of the
            resident set before its time is over.
    """

    model: ModelName
    alias: Alias | None = None
    version: PositiveInt | None = None
    stage_id: str | None = None
    if_generation: int | None = None


class RetireAck(Body):
    """It is gone."""

    generation: int


NackCode = Literal[
    "contract_version",
    "stale_epoch",
    "generation_mismatch",
    "unknown_model",
    "unknown_version",
    "digest_mismatch",
    "not_staged",
    "held",
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
    "worker_died",
    "timeout",
]
PERMANENT_STAGE_FAILURES: frozenset[StageFailure] = frozenset(
    {"integrity", "unsupported", "load_failed", "warm_up_failed"}
)
"""Failures that the same bytes would meet again. The others pass, and are tried again:
``unavailable`` is the network's, the disk's or the like, met by the model's own code, or a copy
that the node does not let be read."""


class StageOutcome(Body):
    """How a stage ended.

    Attributes:
        failure: None: the version is warmed and may be activated.
        message: The reason, as a sentence.
        durations_s: Seconds by phase: ``start``, ``verify``, ``load``, ``warm_up``.
    """

    stage_id: str
    model: ModelName
    version: PositiveInt
    digest: Digest
    failure: StageFailure | None = None
    message: str | None = None
    durations_s: dict[str, float] = Field(default_factory=dict)


class Event(Body):
    """Something that happened on the node; ``seq`` numbers all changes of its state."""

    seq: int
    at: float
    stage: StageOutcome


class ActiveAlias(Body):
    """Where an alias points on this node. ``previous`` is what it pointed at before.

    Attributes:
        asked_by: Who wanted it, as in `ActivateRequest`, or ``rule``; None: an older gateway wrote
            it down, or tells it.
        environment: The environment that workers of these bytes run under once no catalogue
            describes the bytes any more: the version is gone, or was made anew. None: the
            catalogue says it.
        policy: The policy of these bytes, from the same moment on. None: the catalogue says it.
    """

    model: ModelName
    alias: Alias
    version: PositiveInt
    digest: Digest
    since: float
    previous_version: PositiveInt | None = None
    previous_digest: Digest | None = None
    asked_by: str | None = None
    environment: Environment | None = None
    policy: Policy | None = None


class AliasHold(Body):
    """Bytes that an alias must not take: the gateway went back from them by rule.

    The gateway keeps it on disk until it is released, and refuses an activation against it with
    ``held``. A control plane that knows nothing of holds is refused, and goes on trying.

    Attributes:
        digest: What must not be taken.
        reason: Why, as a sentence for people.
        version: Whose bytes they are; None, as what follows: an older gateway wrote it down.
        since: Epoch seconds at which the alias went back.
        to_version: Where it went.
        to_digest: Its bytes.
        generation: Of the route table that did.
    """

    model: ModelName
    alias: Alias
    digest: Digest
    reason: str
    version: PositiveInt | None = None
    since: float = 0.0
    to_version: PositiveInt | None = None
    to_digest: Digest | None = None
    generation: int = 0


class ReleaseRequest(Body):
    """Let an alias take these bytes again. What is not held is fine."""

    model: ModelName
    alias: Alias
    digest: Digest


class ReleaseAck(Body):
    """It may; and that is on disk."""

    generation: int


class Wanted(Body):
    """A version that a caller waits for: its bytes are not here, or its alias is not active.

    Attributes:
        alias: The alias that is not active yet, and is to mean the version; None: the caller named
            the version, or an older gateway tells it.
    """

    model: ModelName
    version: PositiveInt
    since: float
    alias: Alias | None = None


class Unwanted(Body):
    """What `Wanted` named, and no caller waits for any more."""

    model: ModelName
    version: PositiveInt
    alias: Alias | None = None


class AliasName(Body):
    """One alias of one model."""

    model: ModelName
    alias: Alias


class DamagedCopy(Body):
    """A copy in the artifact store that was found altered or missing when it was to be loaded.

    Attributes:
        model: For which version it was to be loaded.
        at: Epoch seconds when that was found last.
        reason: What was found, as a sentence.
    """

    model: ModelName
    version: PositiveInt
    digest: Digest
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
            this answer was made: a change of it alone is no news. Empty from an older gateway.
        holds: What this gateway went back from by itself, until it is released: whoever keeps
            records takes it from here. Empty from an older gateway, which does no such thing.
        damaged: Copies to drop and to fetch again, until one has come or was loaded. Bounded.
            Empty from an older gateway.
        damaged_files: What the gateway could not use of its own files since its start, each file
            once. Empty from an older gateway.
        libraries: A mark of what is installed for its shared workers: another one, after a start
            with other libraries. None from an older gateway.
        partial_catalogues: Whether it understands `Catalogue.complete`. False from an older
            gateway, for which what a catalogue leaves out is gone.
        model_changes: Whether it takes a `ModelChange`. False from an older gateway.
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
    inactive: list[AliasName] = Field(default_factory=list)
    standbys: list[StageRequest] = Field(default_factory=list)
    wanted: list[Wanted] = Field(default_factory=list)
    unwanted: list[Unwanted] = Field(default_factory=list)
    resident: list[Digest] = Field(default_factory=list)
    holds: list[AliasHold] = Field(default_factory=list)
    damaged: list[DamagedCopy] = Field(default_factory=list)
    damaged_files: list[DamagedFile] = Field(default_factory=list)
    libraries: str | None = None
    partial_catalogues: bool = False
    model_changes: bool = False
    events: list[Event] = Field(default_factory=list)
