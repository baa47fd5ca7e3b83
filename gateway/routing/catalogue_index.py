"""The catalogue by model and version, and the refusals that follow from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.contract import (
    ActiveAlias,
    ArtifactRef,
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    VersionState,
)
from gateway.errors import (
    ModelLoadFailedError,
    RegistryUnavailableError,
    VersionDeletedError,
    VersionQuarantinedError,
)
from gateway.routing.lazy_versions import ListedVersions

LOADING_RETRY_AFTER_S = 2.0


def has_bytes(entry: CatalogueVersion, digest: str) -> bool:
    """Whether these are the verified bytes of a version's present creation.

    A version that was deleted and made anew has the number of its predecessor.
    """
    if "accepted_digest" not in entry.model_fields_set:
        return True  # a catalogue on disk may have been written before there was one
    return entry.accepted_digest == digest


def versions_of(model: CatalogueModel) -> ListedVersions:
    """Return the versions of a model, decoded on access."""
    versions: Iterable[CatalogueVersion] = model.versions
    return versions if isinstance(versions, ListedVersions) else ListedVersions(versions)


def added(present: Catalogue, news: Catalogue) -> Catalogue:
    """Return a catalogue with the models of an incomplete one added.

    A listed model replaces a remembered one, never the other way round.
    """
    models = {model.name: model for model in present.models}
    for model in news.models:
        known = models.get(model.name)
        if known is None or known.remembered or not model.remembered:
            models[model.name] = model
    return present.model_copy(
        update={
            "models": [models[name] for name in sorted(models)],
            "writer": news.writer,
            "epoch": news.epoch,
            "listed_at": news.listed_at or present.listed_at,
            "source_error": news.source_error,
        }
    )


@dataclass(frozen=True, slots=True)
class CatalogueIndex:
    """A catalogue by name. Built once for each, and kept while only aliases move."""

    models: Mapping[str, CatalogueModel]
    versions: Mapping[str, ListedVersions]

    @classmethod
    def of(cls, catalogue: Catalogue | None) -> CatalogueIndex:
        """Return the index of a catalogue, or of nothing."""
        models = {model.name: model for model in (catalogue.models if catalogue else ())}
        return cls(models, {name: versions_of(model) for name, model in models.items()})

    def with_model(self, name: str, model: CatalogueModel | None) -> CatalogueIndex:
        """Return the index with one model replaced, or removed if it is None.

        Only references are copied: microseconds for thousands of models.
        """
        models, versions = dict(self.models), dict(self.versions)
        if model is None:
            models.pop(name, None)
            versions.pop(name, None)
        else:
            models[name], versions[name] = model, versions_of(model)
        return CatalogueIndex(models, versions)

    def entry(self, model: str, version: int) -> CatalogueVersion | None:
        """Return a listed version, or None."""
        listed = self.versions.get(model)
        return None if listed is None else listed.of(version)

    def describes(self, ref: ArtifactRef) -> bool:
        """Whether a version is listed with these bytes, and so with their tags and environment."""
        entry = self.entry(ref.model, ref.version)
        if entry is None or entry.state is VersionState.DELETED:
            return False
        return has_bytes(entry, ref.digest)

    def ceases_to_describe(self, ref: ArtifactRef, after: CatalogueIndex) -> bool:
        """Whether this index describes bytes that a later one does not.

        A version whose document has not changed is not decoded.
        """
        if self._document(ref) == after._document(ref):  # the same class
            return False
        return self.describes(ref) and not after.describes(ref)

    def _document(self, ref: ArtifactRef) -> str | None:
        listed = self.versions.get(ref.model)
        return None if listed is None else listed.document(ref.version)


def unlisted(catalogue: Catalogue | None, what: str) -> RegistryUnavailableError:
    """Return the refusal for an entry that the registry may have."""
    if catalogue is None:
        why = "no catalogue has reached this gateway yet: is the control plane running?"
    elif catalogue.source_error is not None:
        why = f"the registry has not been listed: {catalogue.source_error}"
    else:
        why = "the control plane is listing the registry for the first time"
    return RegistryUnavailableError(
        f"{what} is not known on this node: {why}", retry_after_s=LOADING_RETRY_AFTER_S
    )


def refuse_unservable(model: str, entry: CatalogueVersion) -> None:
    """Refuse a version that cannot serve.

    Raises:
        VersionQuarantinedError: Its bytes are wrong.
        VersionDeletedError: It was deleted from the registry, and from this node.
        ModelLoadFailedError: Its last fetch failed.
    """
    name = f"version {entry.version} of model {model!r}"
    if entry.state is VersionState.QUARANTINED:
        raise VersionQuarantinedError(f"{name} is quarantined: {entry.reason}")
    if entry.digest is not None:
        return
    if entry.state is VersionState.DELETED:
        raise VersionDeletedError(f"{name} was deleted in the registry")
    if entry.state is VersionState.FAILED:
        raise ModelLoadFailedError(
            f"{name} could not be fetched: {entry.reason}",
            retry_after_s=LOADING_RETRY_AFTER_S,
            not_fetched=(model, entry.version),
        )


def why_gone(entry: CatalogueVersion | None, ref: ArtifactRef) -> str | None:
    """Return why the bytes of a version would not be fetched again, or None if they would."""
    if entry is None or entry.state is VersionState.DELETED:
        return f"the registry no longer has version {ref.version}"
    if entry.state is VersionState.QUARANTINED:
        return f"version {ref.version} may not serve: {entry.reason}"
    if entry.expected_digest not in (None, ref.digest):
        return f"version {ref.version} has other bytes in the registry now"
    return None


def model_of_active(
    name: str, actives: Iterable[ActiveAlias], *, remembered: bool
) -> CatalogueModel:
    """Return a model that no catalogue lists, from its active aliases alone."""
    digests = {one.version: one.digest for one in actives}
    versions = [
        CatalogueVersion(version=number, state=VersionState.AVAILABLE, digest=digests[number])
        for number in sorted(digests)
    ]
    return CatalogueModel(name=name, versions=versions, remembered=remembered)
