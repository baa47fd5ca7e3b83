"""What a registry wants served: one complete, immutable listing. Pure.

A listing is complete or it does not exist. Absence of a model or a version is therefore a fact
about the registry, but no instruction: what to do about it is the plan's decision.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from registry_sync.domain.tags import Load, Swap, asked_load, asked_swap, asks_own_environment


@dataclass(frozen=True, slots=True)
class AspiredVersion:
    """One ready version of a registered model.

    Attributes:
        model: The registered model's name, as the registry spells it.
        version: Its number, at least 1.
        location: Where the registry says it came from; opaque, perhaps not readable as it is
            (``models:/m-…``). The readable URI comes from `Source.locate`, when it is needed.
        expected_digest: What the publisher stamped; None: nothing, or nothing readable.
        stamp_problem: Why a stamp that is there cannot be read: nobody can check the bytes, so they
            neither come nor begin to serve; None: it can be, or there is no stamp.
        tags: The version's tags, unread.
        status: The registry's word for its state; ``READY`` proves nothing about the bytes.
        created_at: Epoch seconds of registration; None where the registry does not tell.
        creation: What tells this creation from another one of the same model and number; None
            where the registry has no such mark.
        stamp_fixed: Whether the stamp belongs to the number for good: another one under the same
            number is no new statement of the publisher.
        problems: What could not be understood about this version: sentences for users.
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
        """Whether the publisher said what the bytes must be."""
        return self.expected_digest is not None


@dataclass(frozen=True, slots=True)
class AspiredModel:
    """One registered model: its ready versions and where its aliases ought to point.

    Attributes:
        name: The registered model's name.
        versions: Ready versions by number.
        aliases: Alias to version number, ``latest`` (the highest ready version) included. Each
            target is in ``versions``.
        unfollowed: Aliases that the registry has, at versions that are not listed or not ready.
            They are there: what they mean on the node goes on.
        left_out: Numbers that the registry has and that are not in ``versions``: not ready, or not
            readable. They are not gone.
        aliases_known: Whether the registry's aliases could be read. False: nobody knows which ones
            it has, and what each means on the node goes on.
        tags: The registered model's tags, unread.
        problems: What could not be understood or followed: sentences for users.
    """

    name: str
    versions: Mapping[int, AspiredVersion]
    aliases: Mapping[str, int] = field(default_factory=dict)
    unfollowed: frozenset[str] = frozenset()
    left_out: frozenset[int] = frozenset()
    aliases_known: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def has(self, version: int) -> bool:
        """Whether the registry has this number, whatever its state."""
        return version in self.versions or version in self.left_out

    def leaves_alone(self, alias: str) -> bool:
        """Whether an alias that is not in ``aliases`` goes on as it is, rather than being gone."""
        return alias in self.unfollowed or not self.aliases_known

    def asks_own_environment(self, version: int) -> bool:
        """Whether one of its versions is to run in an environment of its own."""
        return asks_own_environment(*self._tags_of(version))

    def load_of(self, version: int) -> Load:
        """Return when one of its versions is to be fetched and loaded."""
        return asked_load(*self._tags_of(version))

    def swap_of(self, version: int) -> Swap:
        """Return how one of its versions takes another one's place."""
        return asked_swap(*self._tags_of(version))

    def _tags_of(self, version: int) -> tuple[Mapping[str, str], ...]:
        """Return the tags that say what is asked of a version: its own go before its model's."""
        listed = self.versions.get(version)
        return (listed.tags, self.tags) if listed else (self.tags,)


@dataclass(frozen=True, slots=True)
class Aspired:
    """Everything that one registry listed at one time.

    Attributes:
        models: Registered models by name.
        listed_at: Epoch seconds at which the listing began.
        problems: Models that had to be left out, and why: sentences for operators.
        marks: By model, a value that is equal in the next listing if nothing of it has changed,
            the tags of its versions excepted. A model without one has to be listed anew.
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
    """Return where the registry's alias points; None: at nothing that can be followed."""
    listed = aspired.models.get(model)
    return listed.aliases.get(alias) if listed else None


def is_unfollowed(aspired: Aspired, model: str, alias: str) -> bool:
    """Whether an alias is there without a version that can be followed: it goes on as it is."""
    listed = aspired.models.get(model)
    return listed is not None and listed.leaves_alone(alias)
