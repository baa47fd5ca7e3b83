"""The catalogue: the registered models, versions and aliases that a node may serve."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import AliasChoices, Field, PositiveInt

from gateway.contract.body import CONTRACT_VERSION, Body, Digest, ModelName
from gateway.contract.times import Timestamp


class VersionState(StrEnum):
    """The state of a version, as the control plane knows it.

    ``REGISTERED`` → ``FETCHING`` (bytes are being fetched, or the upload may go on) → ``AVAILABLE``
    (verified bytes are on this node), or ``FAILED`` (fetch or verification failed, and is tried
    again), ``QUARANTINED`` (the bytes are wrong), ``DELETED`` (deleted from the registry; the
    version is served while its bytes are kept).
    """

    REGISTERED = "registered"
    FETCHING = "fetching"
    AVAILABLE = "available"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    DELETED = "deleted"


class Environment(Body):
    """The Python environment of a version's workers.

    Attributes:
        kind: ``shared``: the gateway's interpreter and libraries; ``own``: built from the version's
            requirements.
        python: The path of the own interpreter, or None if it is shared or not built yet.
        digest: Digest of the requirements and Python version of an own environment that is built.
    """

    kind: Literal["shared", "own"] = "shared"
    python: str | None = None
    digest: str | None = None


class Policy(Body):
    """The policy of a model or of one version, from its tags. A field is None if no tag sets it.

    Values are not checked again: the gateway accepts those of a newer control plane.

    Attributes:
        swap: How a version replaces another: ``blue_green``, ``unload_first``, ``auto``.
        load: When it is fetched and loaded: ``preload``, ``lazy``, ``on_demand``.
        replicas: Workers per version.
        keep_resident: Whether it stays resident; ``pin`` before the first release.
        timeout_s: Seconds for one request.
        max_batch_rows: The most rows that are joined into one call of the model.
        cache_ttl_s: Seconds for which an answer may be given again.
        environment: The environment of its workers: ``shared``, ``own``.
        problems: Of a model only: tags of the model and its versions that are malformed, unknown
            or cannot be followed. Sentences for users, bounded.
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
        """Return a model's policy, overridden by that of one version."""
        if own is None:
            return self
        return self.model_copy(update=own.model_dump(exclude_none=True, exclude={"problems"}))


class CatalogueVersion(Body):
    """One registered version, as the control plane knows it.

    Attributes:
        digest: The verified artifact in the store of this node, or None if it is not there.
        expected_digest: The digest that the publisher stamped, or the accepted one.
        accepted_digest: The digest that was verified for this creation of the version, or None. No
            other bytes are served under its number.
        stamped: Whether ``expected_digest`` comes from the publisher.
        rejected: Whether no alias may take it, because its load or warm-up failed here.
        reason: The reason for the state, as a sentence for users.
        description: Flavor, loader, signature, frameworks, example; passed unread to the worker.
        retry_at: Epoch seconds of the next try, for ``FAILED`` and for an upload that may go on.
        size_bytes: Size of the artifact, or None if it is unknown.
        created_at: Epoch seconds of registration, or None if the source does not list them.
        environment: The environment of workers of its accepted bytes.
        policy: The policy of its own tags, which overrides its model's, or None without such tags.
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
    """One registered model: its versions, the aspired versions of its aliases, its policy.

    Attributes:
        notes: By alias, why it does not follow the registry: sentences for users.
        signature_changes: By alias, what its last or next move changes in the signature: sentences
            for users.
        remembered: Whether it may lack versions: the control plane knows only what was accepted
            here before. Only in a catalogue that is not complete.
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
    """A full snapshot of the registry, sent when a gateway connects.

    Until the registry has been listed once, the snapshot is not complete: the registry may have
    more models and versions. Later changes are sent by model, as `ModelChange`.

    Attributes:
        writer: The control plane's boot id.
        epoch: Grows with every snapshot of one writer; an older one is refused.
        listed_at: Epoch seconds of the registry's answer, or None if there was none yet.
        source_error: Why the last listing failed, or None if it succeeded.
        complete: Whether the registry was ever listed.
    """

    contract_version: int = CONTRACT_VERSION
    writer: str
    epoch: int
    models: list[CatalogueModel]
    listed_at: float | None = None
    source_error: str | None = None
    complete: bool = True


class ModelChange(Body):
    """The new state of one model of a catalogue.

    Attributes:
        writer: As of the snapshot that it changes.
        epoch: As of that snapshot; a gateway with another snapshot refuses the change.
        revision: Grows with every change of one snapshot. A change may be sent again.
        name: The name of the model.
        model: The model, or None if the catalogue lists it no longer.
    """

    writer: str
    epoch: int
    revision: PositiveInt
    name: ModelName
    model: CatalogueModel | None


class UnchangedCatalogue(Body):
    """The registry was listed again; the snapshot of this epoch and its changes are still right."""

    writer: str
    epoch: int
    listed_at: float | None = None
    source_error: str | None = None
