"""The aliases of a listed model that can be followed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.contract import LATEST, InvalidReferenceError, parse_alias, parse_version
from registry_sync.domain import LatestPolicy

READY = "READY"
_SHOWN_CHARACTERS = 32


def read_aliases(
    listed: Mapping[str, Any], statuses: Mapping[int, str], latest: LatestPolicy
) -> tuple[dict[str, int], set[str], list[str]]:
    """Return the aliases of ready versions, all other aliases, and their problems.

    ``latest``, the highest ready version, is an alias of those models that the policy names.

    Args:
        listed: The unchecked targets of the aliases.
        statuses: The status of each version.
        latest: Which models have the alias ``latest``.
    """
    aliases: dict[str, int] = {}
    unfollowed: set[str] = set()
    problems: list[str] = []
    for text, target in sorted(listed.items()):
        try:
            alias = parse_alias(text)
        except InvalidReferenceError as error:
            problems.append(f"the alias {text!r} is ignored: {error}")
            continue
        if alias == LATEST:
            problems.append(
                f"the alias {text!r} is ignored: where a model has it, it means the highest version"
            )
            continue
        try:
            version = parse_version(str(target))
        except InvalidReferenceError:
            unfollowed.add(alias)
            shown = str(target)[:_SHOWN_CHARACTERS]
            problems.append(f"the alias {text!r} points at {shown!r}, which cannot be a version")
            continue
        status = statuses.get(version, "not listed")
        if status == READY:
            aliases[alias] = version
        else:
            unfollowed.add(alias)
            problems.append(f"the alias {text!r} points at version {version}, which is {status}")
    ready = [version for version, status in statuses.items() if status == READY]
    has_others = any(alias != LATEST for alias in listed)
    if ready and (latest == "always" or (latest == "without_aliases" and not has_others)):
        aliases[LATEST] = max(ready)
    return aliases, unfollowed, problems
