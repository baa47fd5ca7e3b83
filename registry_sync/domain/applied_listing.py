"""Application of a listing to the one before. Pure.

An empty listing after one with models changes nothing. Absent models and aliases are removed only
when a second listing lacks them too.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from registry_sync.domain.aspired import Aspired, AspiredModel


@dataclass(frozen=True, slots=True)
class AppliedListing:
    """The listing in force, and the absences that a second listing must confirm.

    Attributes:
        missing: ``(model, "")`` and ``(model, alias)`` that the newest listing lacks.
        ignored: Why the newest listing was ignored, or None.
    """

    aspired: Aspired
    missing: frozenset[tuple[str, str]] = frozenset()
    ignored: str | None = None


def apply_listing(before: AppliedListing, listed: Aspired) -> AppliedListing:
    """Return the listing in force after a new complete listing."""
    if not listed.models and before.aspired.models:
        count = len(before.aspired.models)
        return AppliedListing(
            replace(before.aspired, listed_at=listed.listed_at),
            before.missing,
            f"the registry lists no models, after {count} before: the listing is ignored",
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
    return AppliedListing(replace(listed, models=models), frozenset(missing))


def _without_aliases(known: AspiredModel, missing: AbstractSet[tuple[str, str]]) -> AspiredModel:
    """Return a model without the aliases that the listing before lacked already."""
    gone = {alias for name, alias in missing if name == known.name}
    aliases = {alias: to for alias, to in known.aliases.items() if alias not in gone}
    return replace(known, aliases=aliases, unfollowed=known.unfollowed - gone)


def _missing_aliases(
    known: AspiredModel, found: AspiredModel, missing: AbstractSet[tuple[str, str]]
) -> AbstractSet[str]:
    """Return the aliases that are missing for the first time.

    A listing that lacks a model lacks its aliases too.
    """
    if (known.name, "") in missing:
        return set()
    return {
        alias
        for alias in (*known.aliases, *known.unfollowed)
        if alias not in found.aliases
        and not found.keeps_alias(alias)
        and (known.name, alias) not in missing
    }


def _with_aliases(known: AspiredModel, found: AspiredModel, kept: AbstractSet[str]) -> AspiredModel:
    """Return a model with missing aliases, and their versions, kept for one more listing.

    An alias of a version that was made anew meanwhile is kept without a target: the registry never
    pointed the alias at the new creation. Aliases that could not be read stay unfollowed, so that
    the next listing still notices their absence.
    """
    unknown = frozenset() if found.aliases_known else known.unfollowed.union(known.aliases)
    pointed = {
        alias: known.aliases[alias]
        for alias in kept
        if alias in known.aliases and not found.has_made_anew(known.aliases[alias], known)
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
