"""What counts after a listing, seen against the one before. Pure.

A listing that is empty where there was something changes nothing, and what a listing no longer has
goes only when the next one agrees.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from registry_sync.domain.aspired import Aspired, AspiredModel


@dataclass(frozen=True, slots=True)
class Settled:
    """The listing that counts, and what only waits for the next one to agree.

    Attributes:
        missing: ``(model, "")`` and ``(model, alias)`` that the newest listing lacks.
        ignored: Why the newest listing changed nothing; None: it counts.
    """

    aspired: Aspired
    missing: frozenset[tuple[str, str]] = frozenset()
    ignored: str | None = None


def settle(before: Settled, listed: Aspired) -> Settled:
    """Return what counts after a new listing.

    Args:
        before: What counted until now.
        listed: The newest complete listing.
    """
    if not listed.models and before.aspired.models:
        count = len(before.aspired.models)
        return Settled(
            replace(before.aspired, listed_at=listed.listed_at),
            before.missing,
            f"the registry lists no model at all, and listed {count} before: nothing is changed",
        )
    models = dict(listed.models)
    missing: set[tuple[str, str]] = set()
    for name, known in before.aspired.models.items():
        found = models.get(name)
        if found is None or (not found.versions and known.versions):
            if (name, "") not in before.missing:
                missing.add((name, ""))
                models[name] = _without_aliases(known, before.missing)
            continue
        kept = _missing_aliases(known, found, before.missing)
        missing.update((name, alias) for alias in kept)
        models[name] = _with_aliases(known, found, kept)
    return Settled(replace(listed, models=models), frozenset(missing))


def _without_aliases(known: AspiredModel, missing: AbstractSet[tuple[str, str]]) -> AspiredModel:
    """Let aliases go that the listing before lacked already: this one lacks their model too."""
    gone = {alias for name, alias in missing if name == known.name}
    aliases = {alias: to for alias, to in known.aliases.items() if alias not in gone}
    return replace(known, aliases=aliases, unfollowed=known.unfollowed - gone)


def _missing_aliases(
    known: AspiredModel, found: AspiredModel, missing: AbstractSet[tuple[str, str]]
) -> AbstractSet[str]:
    """Aliases that went away for the first time, wherever they were.

    A listing that lacked their model lacked them too.
    """
    if (known.name, "") in missing:
        return set()
    return {
        alias
        for alias in (*known.aliases, *known.unfollowed)
        if alias not in found.aliases
        and not found.leaves_alone(alias)
        and (known.name, alias) not in missing
    }


def _with_aliases(known: AspiredModel, found: AspiredModel, kept: AbstractSet[str]) -> AspiredModel:
    """Keep aliases, and the versions that they point at, for one more listing.

    Of a version that was made anew meanwhile the registry has never said that the alias means it:
    such an alias goes on as it is. What a listing could not tell stays known as being there: else
    the next listing, in which it is missing for the first time, would find nothing that went away.
    """
    unknown = frozenset() if found.aliases_known else known.unfollowed.union(known.aliases)
    pointed = {
        alias: known.aliases[alias]
        for alias in kept
        if alias in known.aliases and not _is_made_anew(known, found, known.aliases[alias])
    }
    if not kept and unknown <= found.unfollowed:
        return found
    versions = dict(found.versions)
    for version in pointed.values():
        if version in known.versions:
            versions.setdefault(version, known.versions[version])
    return replace(
        found,
        versions=versions,
        aliases={**found.aliases, **pointed},
        unfollowed=found.unfollowed | unknown | (kept - pointed.keys()),
    )


def _is_made_anew(known: AspiredModel, found: AspiredModel, version: int) -> bool:
    before, now = known.versions.get(version), found.versions.get(version)
    if before is None or now is None or None in (before.creation, now.creation):
        return False  # an older release remembered it without its creation
    return before.creation != now.creation
