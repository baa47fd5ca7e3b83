"""The catalogue: the registered models, versions and aliases that a node may serve."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import AliasChoices, Field, PositiveInt

from gateway.contract.body import CONTRACT_VERSION, Body, Digest, ModelName
from gateway.contract.times import Timestamp


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
        keep_resident: Whether it stays resident; ``pin`` before the first release.
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
    keep_resident: bool | None = Field(
        default=None, validation_alias=AliasChoices("keep_resident", "pin")
    )
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
    retry_at: Timestamp | None = None
    size_bytes: int | None = None
    created_at: Timestamp | None = None
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
        complete: Whether the registry was listed, now or before.
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
