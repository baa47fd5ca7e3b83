"""A complete, immutable listing of a registry. Pure.

A listing is complete, or an error. The absence of a model or a version is a fact about the
registry, not an instruction; the plan decides what follows from it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from registry_sync.domain.tags import Load, Swap, load_mode, needs_own_environment, swap_mode

LatestPolicy = Literal["never", "without_aliases", "always"]
"""Which models have the alias ``latest``, the highest ready version: none, those without another
alias, or all."""


@dataclass(frozen=True, slots=True)
class AspiredVersion:
    """One ready version of a registered model.

    Attributes:
        model: The registered model's name, as the registry spells it.
        version: Its number, at least 1.
        location: The registry's source of the version; opaque, and not always readable
            (``models:/m-…``). `Source.locate` returns the readable URI.
        expected_digest: The stamped digest, or None without a readable stamp.
        stamp_problem: Why the stamp cannot be read, or None. Without it the bytes cannot be
            verified, so the version is neither fetched nor activated.
        tags: The version's tags, unparsed.
        status: The registry's name for its state; ``READY`` proves nothing about the bytes.
        created_at: Epoch seconds of registration, or None if the registry keeps no such time.
        creation: Mark of this creation of the version, or None if the registry has no such mark.
        stamp_fixed: Whether the stamp can never change under this version number.
        problems: Problems of this version, as sentences for users.
    """

    model: str
    version: int
    location: str
    expected_digest: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = "READY"
    created_at: float | None = None
    creation: str | None = None
    stamp_fixed: bool = False
    problems: tuple[str, ...] = ()
    stamp_problem: str | None = None

    @property
    def stamped(self) -> bool:
        """Whether the publisher stamped a digest."""
        return self.expected_digest is not None


@dataclass(frozen=True, slots=True)
class AspiredModel:
    """One registered model: its ready versions and its aliases.

    Attributes:
        name: The registered model's name.
        versions: Ready versions by number.
        aliases: Alias to version number, with ``latest`` if the policy gives it to this model. Each
            target is in ``versions``.
        unfollowed: Aliases whose versions are not listed or not ready; the node keeps them as they
            are.
        unready: Versions that the registry has and that are not ready or not readable.
        aliases_known: Whether the registry's aliases could be read; if not, the node keeps each
            alias as it is.
        tags: The registered model's tags, unparsed.
        problems: Problems of the model, as sentences for users.
    """

    name: str
    versions: Mapping[int, AspiredVersion]
    aliases: Mapping[str, int] = field(default_factory=dict)
    unfollowed: frozenset[str] = frozenset()
    unready: frozenset[int] = frozenset()
    aliases_known: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def has(self, version: int) -> bool:
        """Whether the registry has a version, in any state."""
        return version in self.versions or version in self.unready

    def keeps_alias(self, alias: str) -> bool:
        """Whether the node keeps an alias that is not in ``aliases`` as it is."""
        return alias in self.unfollowed or not self.aliases_known

    def has_made_anew(self, version: int, before: AspiredModel) -> bool:
        """Whether a version is another creation than before; False if either is unknown."""
        was, now = before.versions.get(version), self.versions.get(version)
        if was is None or now is None or None in (was.creation, now.creation):
            return False
        return was.creation != now.creation

    def needs_own_environment(self, version: int) -> bool:
        """Whether a version runs in an environment of its own."""
        return needs_own_environment(*self._tags_of(version))

    def load_of(self, version: int) -> Load:
        """Return when a version is fetched and loaded."""
        return load_mode(*self._tags_of(version))

    def swap_of(self, version: int) -> Swap:
        """Return how a version replaces another."""
        return swap_mode(*self._tags_of(version))

    def _tags_of(self, version: int) -> tuple[Mapping[str, str], ...]:
        """Return the tags that apply to a version, its own before its model's."""
        listed = self.versions.get(version)
        return (listed.tags, self.tags) if listed else (self.tags,)


@dataclass(frozen=True, slots=True)
class Aspired:
    """Everything that a registry listed at one time.

    Attributes:
        models: Registered models by name.
        listed_at: Epoch seconds at which the listing began.
        problems: Why models were skipped, as sentences for operators.
        marks: A value by model that stays equal while only the tags of its versions change. A
            model without a mark must be listed anew.
    """

    models: Mapping[str, AspiredModel]
    listed_at: float
    problems: tuple[str, ...] = ()
    marks: Mapping[str, Hashable] = field(default_factory=dict, compare=False)

    def versions(self) -> Iterator[AspiredVersion]:
        """Yield every version of every model, in order of name and number."""
        for name in sorted(self.models):
            versions = self.models[name].versions
            for number in sorted(versions):
                yield versions[number]


def find(aspired: Aspired, model: str, version: int) -> AspiredVersion | None:
    """Return a version that the registry lists, or None."""
    listed = aspired.models.get(model)
    return listed.versions.get(version) if listed else None


def aspired_version(aspired: Aspired, model: str, alias: str) -> int | None:
    """Return the version that the registry's alias points at, or None if it cannot be followed."""
    listed = aspired.models.get(model)
    return listed.aliases.get(alias) if listed else None


def is_unfollowed(aspired: Aspired, model: str, alias: str) -> bool:
    """Whether the registry has an alias that cannot be followed, so that the node keeps it."""
    listed = aspired.models.get(model)
    return listed is not None and listed.keeps_alias(alias)
