"""The route table resolves a selector to a version and its bytes. Frozen snapshots, pure.

The catalogue lists the registry's versions; the active aliases are those that this node serves. An
alias resolves to its active version. A lookup uses one snapshot from start to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gateway.contract import (
    LATEST,
    ActiveAlias,
    AliasRef,
    ArtifactRef,
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    Policy,
    RefusedDigest,
    Selector,
    VersionState,
)
from gateway.errors import (
    AliasNotFoundError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    NoDefaultVersionError,
    VersionNotFoundError,
)
from gateway.routing.catalogue_index import (
    LOADING_RETRY_AFTER_S,
    CatalogueIndex,
    added,
    has_bytes,
    model_of_active,
    refuse_unservable,
    unlisted,
    versions_of,
    why_gone,
)

_MOST_REFUSED_OF_ALIAS = 16
_MOST_SHOWN = 10
_NO_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Route:
    """The version that a request goes to.

    Attributes:
        digest: The artifact in this node's store, or None if it was not fetched yet.
        ref: The version and its bytes; without a digest, its digest is empty.
        generation: The generation of the table that resolved it.
        timeout_s: The model's time-out, or None if no tag sets one.
    """

    model: str
    version: int
    digest: str | None
    generation: int
    timeout_s: float | None = None
    ref: ArtifactRef = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the reference once: every request of the version uses it."""
        object.__setattr__(self, "ref", ArtifactRef(self.model, self.version, self.digest or ""))


@dataclass(frozen=True)
class RouteTable:
    """An immutable snapshot of everything that this node can route.

    Attributes:
        generation: Counts activations and retirements, over restarts too.
        default_alias: Used where neither caller nor model names a version.
        catalogue: The last one that the control plane published, or None.
        active: The active version of each alias.
        refused_digests: Digests that aliases may not take after automatic rollbacks.
    """

    default_alias: str
    generation: int = 0
    catalogue: Catalogue | None = None
    active: Mapping[AliasRef, ActiveAlias] = field(default_factory=dict)
    refused_digests: tuple[RefusedDigest, ...] = ()
    # Successful lookups only, so the memo is bounded by the table's own size.
    _memo: dict[tuple[str, Selector | None], Route] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def _index(self) -> CatalogueIndex:
        return CatalogueIndex.of(self.catalogue)

    @property
    def is_known(self) -> bool:
        """Whether this node has ever had a table, or a catalogue of a registry that answered."""
        return self.generation > 0 or (
            self.catalogue is not None and self.catalogue.listed_at is not None
        )

    @property
    def targets(self) -> frozenset[ArtifactRef]:
        """Return the targets of the active aliases. Not cached."""
        return frozenset(one.ref for one in self.active.values())

    def is_target(self, ref: ArtifactRef) -> bool:
        """Whether an active alias points at these bytes of a version."""
        return any(one.ref == ref for one in self._active_of.get(ref.model, {}).values())

    @cached_property
    def _active_of(self) -> Mapping[str, Mapping[str, ActiveAlias]]:
        by_model: dict[str, dict[str, ActiveAlias]] = {}
        for (model, alias), entry in self.active.items():
            by_model.setdefault(model, {})[alias] = entry
        return by_model

    # --- questions --------------------------------------------------------------------------------

    def resolve(self, model: str, selector: Selector | None) -> Route:
        """Return the version that a caller means; without a selector, the model's default.

        Raises:
            RequestError: The model, version or alias is unknown, or the version was deleted.
            CapacityError: The alias is known but not active yet.
            ServingError: The version is quarantined, or its last fetch failed.
        """
        route = self._memo.get((model, selector))
        if route is None:
            route = self._resolve(model, selector)
            self._memo[model, selector] = route
        return route

    def model(self, name: str) -> CatalogueModel:
        """Return a model's entry in the catalogue.

        Raises:
            ModelNotFoundError: The registry lists no such model.
            RegistryUnavailableError: The registry was never listed.
        """
        entry = self._index.models.get(name)
        if entry is not None:
            return entry
        if name in self._active_of:
            actives = self._active_of[name].values()
            return model_of_active(name, actives, remembered=not self._is_complete)
        if self._is_complete:
            raise ModelNotFoundError(f"there is no registered model {name!r}")
        raise unlisted(self.catalogue, f"model {name!r}")

    @property
    def _is_complete(self) -> bool:
        """Whether the catalogue has everything that the registry has."""
        return self.catalogue is not None and self.catalogue.complete

    def names(self) -> list[str]:
        """Return the names of every listed or active model, sorted."""
        return sorted({*self._index.models, *self._active_of})

    def knows(self, model: str, version: int | None) -> bool:
        """Whether a model, or one of its versions, is listed or active."""
        active = self._active_of.get(model, {})
        listed = self._index.models.get(model)
        if version is None:
            return listed is not None or bool(active)
        if listed is not None and versions_of(listed).has(version):
            return True
        return any(entry.version == version for entry in active.values())

    def version(self, model: str, version: int) -> CatalogueVersion:
        """Return the listing of one version.

        Raises:
            ModelNotFoundError: The model is unknown.
            VersionNotFoundError: The version is unknown.
            RegistryUnavailableError: The registry, which may have it, was never listed.
        """
        entry = self._index.entry(model, version)
        if entry is not None:
            return entry
        known = self.model(model)
        entry = versions_of(known).of(version)
        if entry is not None:
            return entry
        if known.remembered:
            raise unlisted(self.catalogue, f"version {version} of model {model!r}")
        raise VersionNotFoundError(f"model {model!r} has no version {version}")

    def policy_of(self, ref: ArtifactRef) -> Policy:
        """Return the policy of a version; an empty one if it is not listed.

        The bytes of a predecessor keep the policy that they had.
        """
        kept = self._kept(ref)
        if kept is not None and kept.policy is not None:
            return kept.policy
        listed = self._index.models.get(ref.model)
        if listed is None:
            return _NO_POLICY
        entry = self._index.entry(ref.model, ref.version)
        return listed.policy.with_own(entry.policy if entry else None)

    def is_out_of_reach(self, ref: ArtifactRef) -> bool:
        """Whether no caller can mean these bytes: no alias and no listed version has them."""
        if self.is_target(ref):
            return False
        entry = self._index.entry(ref.model, ref.version)
        return self._is_complete if entry is None else not has_bytes(entry, ref.digest)

    def environment_of(self, ref: ArtifactRef) -> Environment:
        """Return the environment of these bytes; the shared one if it is unknown."""
        kept = self._kept(ref)
        if kept is not None and kept.environment is not None:
            return kept.environment
        entry = self._index.entry(ref.model, ref.version)
        return entry.environment if entry is not None else Environment()

    def _kept(self, ref: ArtifactRef) -> ActiveAlias | None:
        """Return an active alias that keeps the policy of unlisted bytes, or None."""
        if self._index.describes(ref):
            return None
        of_model = self._active_of.get(ref.model, {}).values()
        return next((one for one in of_model if one.ref == ref and one.policy is not None), None)

    def active_of(self, model: str) -> dict[str, ActiveAlias]:
        """Return the active aliases of a model."""
        return dict(self._active_of.get(model, {}))

    def refused_digest(self, alias: AliasRef, digest: str) -> RefusedDigest | None:
        """Return the refusal of these bytes for an alias, or None."""
        meant = (alias, digest)
        found = (one for one in self.refused_digests if (one.alias_ref, one.digest) == meant)
        return next(found, None)

    def why_no_rollback(self, active: ActiveAlias) -> str | None:
        """Return why an alias cannot be rolled back to its previous version, or None.

        Without a catalogue entry, nothing is known against a version.
        """
        back = active.previous_ref
        if back is None:
            return "it has no previous version"
        refused = self.refused_digest(active.alias_ref, back.digest)
        if refused is not None:
            return f"it was rolled back from version {back.version} before: {refused.reason}"
        if (gone := self.why_gone(back)) is not None:
            return gone
        entry = self._index.entry(back.model, back.version)
        if entry is None:
            return None
        if entry.rejected:
            return f"version {back.version} may not serve: {entry.reason}"
        if entry.digest != back.digest:
            return (
                f"version {back.version} cannot be loaded: {entry.reason or 'its bytes are gone'}"
            )
        return None

    def why_gone(self, ref: ArtifactRef) -> str | None:
        """Return why a version's bytes would not be fetched again, or None if they would.

        Without a catalogue, None.
        """
        entry = self._index.entry(ref.model, ref.version)
        if entry is None and not self._is_complete:
            return None
        return why_gone(entry, ref)

    def without_copy(self, model: str, version: int) -> Route | None:
        """Return the route to replicas of a version whose copy is not on this node.

        It names the expected digest, or is None if that is unknown or may not serve.
        """
        entry = self._index.entry(model, version)
        if entry is None or entry.expected_digest is None or entry.rejected:
            return None
        if entry.state in (VersionState.QUARANTINED, VersionState.DELETED):
            return None
        if entry.description is not None:
            return None  # the copy is here, but cannot be loaded, or not yet
        if entry.environment.kind == "own" and entry.environment.python is None:
            return None
        return self._route(model, version, entry.expected_digest)

    # --- the next table ---------------------------------------------------------------------------

    def with_catalogue(self, catalogue: Catalogue) -> RouteTable:
        """Return the table with another catalogue. No alias moves, so the generation stays.

        An incomplete catalogue only adds to the present one. An alias whose bytes are no longer
        described keeps their present policy and environment.
        """
        if self.catalogue is not None and not catalogue.complete:
            catalogue = added(self.catalogue, catalogue)
        return self._with_index(CatalogueIndex.of(catalogue), catalogue, self.active)

    def with_model(self, name: str, model: CatalogueModel | None) -> RouteTable:
        """Return the table with one model replaced in its catalogue, or removed if it is None."""
        present = self.catalogue
        if present is None:
            return self
        index = self._index.with_model(name, model)
        catalogue = present.model_copy(update={"models": list(index.models.values())})
        of_model = (AliasRef(name, alias) for alias in self._active_of.get(name, {}))
        return self._with_index(index, catalogue, {key: self.active[key] for key in of_model})

    def _with_index(
        self,
        after: CatalogueIndex,
        catalogue: Catalogue,
        concerned: Mapping[AliasRef, ActiveAlias],
    ) -> RouteTable:
        """Return the table with another catalogue; only these active aliases may be concerned."""
        keeping = {}
        for key, active in concerned.items():
            served = active.ref
            if self._index.ceases_to_describe(served, after):
                own = {
                    "environment": self.environment_of(served),
                    "policy": self.policy_of(served).model_copy(update={"problems": []}),
                }
                keeping[key] = active.model_copy(update=own)
        following = self._following(index=after, catalogue=catalogue)
        for key, entry in keeping.items():
            following = following._pointing(key, entry)  # noqa: SLF001  # the same class
        return following

    def with_listing(self, listed_at: float | None, source_error: str | None) -> RouteTable:
        """Return the table with the time and error of a later listing."""
        if self.catalogue is None:
            return self
        news = {"listed_at": listed_at or self.catalogue.listed_at, "source_error": source_error}
        return self._following(catalogue=self.catalogue.model_copy(update=news))

    def with_active(self, entry: ActiveAlias) -> RouteTable:
        """Return the next table, in which an alias points at ``entry``."""
        return self._pointing(entry.alias_ref, entry, generation=self.generation + 1)

    def rolled_back(self, entry: ActiveAlias, refused: RefusedDigest) -> RouteTable:
        """Return the next table, in which an alias is rolled back, and refused a digest."""
        others = self.without_refused_digest(refused.alias_ref, refused.digest).refused_digests
        of_alias = [one for one in others if one.alias_ref == refused.alias_ref]
        oldest = set(of_alias[: 1 - _MOST_REFUSED_OF_ALIAS])
        kept = tuple(one for one in others if one not in oldest)
        following = self.with_active(entry)
        return following._following(refused_digests=(*kept, refused))  # noqa: SLF001  # the same class

    def without_refused_digest(self, alias: AliasRef, digest: str) -> RouteTable:
        """Return the table without a refused digest. The generation stays."""
        allowed = (alias, digest)
        kept = (one for one in self.refused_digests if (one.alias_ref, one.digest) != allowed)
        return self._following(refused_digests=tuple(kept))

    def without_alias(self, alias: AliasRef) -> RouteTable:
        """Return the next table, without an alias."""
        return self._pointing(alias, None, generation=self.generation + 1)

    def _pointing(self, key: AliasRef, entry: ActiveAlias | None, **changes: Any) -> RouteTable:
        """Return the table in which an alias points at ``entry``, or is removed if that is None."""
        model, alias = key
        active = dict(self.active)
        of_model = dict(self._active_of.get(model, {}))
        active_of = dict(self._active_of)
        if entry is None:
            active.pop(key, None)
            of_model.pop(alias, None)
        else:
            active[key] = of_model[alias] = entry
        active_of[model] = of_model
        if not of_model:
            del active_of[model]
        return self._following(active_of=active_of, active=active, **changes)

    def _following(
        self,
        *,
        index: CatalogueIndex | None = None,
        active_of: Mapping[str, Mapping[str, ActiveAlias]] | None = None,
        **changes: Any,
    ) -> RouteTable:
        """Return the next table with the present indexes, or with these."""
        following = replace(self, **changes)
        # Where `cached_property` keeps them.
        following.__dict__["_index"] = self._index if index is None else index
        following.__dict__["_active_of"] = self._active_of if active_of is None else active_of
        return following

    # --- details ----------------------------------------------------------------------------------

    def _resolve(self, model: str, selector: Selector | None) -> Route:
        if selector is None:
            return self._default(model)
        if isinstance(selector, int):
            return self._by_version(model, selector)
        return self._by_alias(model, selector)

    def _default(self, model: str) -> Route:
        entry = self.model(model)
        for alias in (entry.default_alias or self.default_alias, LATEST):
            if AliasRef(model, alias) in self.active or alias in entry.aliases:
                return self._by_alias(model, alias)
        if entry.remembered:
            raise unlisted(self.catalogue, f"a default version of model {model!r}")
        missing = entry.default_alias or self.default_alias
        raise NoDefaultVersionError(
            f"model {model!r} has no alias {missing!r}, which a request without a version means: "
            f"{self._remedy(model, entry)}"
        )

    def _remedy(self, model: str, entry: CatalogueModel) -> str:
        """Return what a caller without a version can do."""
        aliases = sorted({*entry.aliases, *self.active_of(model)})
        names = ", ".join(f"@{one}" for one in aliases[:_MOST_SHOWN])
        more = " and others" if len(aliases) > _MOST_SHOWN else ""
        named = f"name one of its aliases ({names}{more})" if aliases else "name a version"
        return f"{named}, or set the alias in the registry"

    def _by_alias(self, model: str, alias: str) -> Route:
        active = self.active.get(AliasRef(model, alias))
        if active is not None:
            return self._route(model, active.version, active.digest)
        known = self.model(model)
        aspired = known.aliases.get(alias)
        if aspired is None and known.remembered:
            raise unlisted(self.catalogue, f"alias {alias!r} of model {model!r}")
        if aspired is None:
            raise AliasNotFoundError(f"model {model!r} has no alias {alias!r}")
        entry = self.version(model, aspired)
        refuse_unservable(model, entry)
        if entry.rejected:
            raise ModelLoadFailedError(
                f"alias {alias!r} of model {model!r} is not active on this node: version "
                f"{aspired} was {entry.reason}"
            )
        raise ModelLoadingError(
            f"alias {alias!r} of model {model!r} is not active on this node yet: version "
            f"{aspired} is being fetched, checked and warmed",
            retry_after_s=LOADING_RETRY_AFTER_S,
            awaited=(model, aspired, alias),
        )

    def _by_version(self, model: str, version: int) -> Route:
        listed = self._index.entry(model, version)
        for active in self._active_of.get(model, {}).values():
            # Bytes that serve an alias serve callers by number too, even if the registry has other
            # bytes now. But a version that was made anew is another one: its callers wait.
            if active.version == version and (listed is None or has_bytes(listed, active.digest)):
                return self._route(model, version, active.digest)
        entry = self.version(model, version)
        refuse_unservable(model, entry)
        return self._route(model, version, entry.digest)

    def _route(self, model: str, version: int, digest: str | None) -> Route:
        return Route(
            model=model,
            version=version,
            digest=digest,
            generation=self.generation,
            timeout_s=self.policy_of(ArtifactRef(model, version, digest or "")).timeout_s,
        )
