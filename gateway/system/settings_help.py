"""The ``--help`` of settings, and warnings about variables that are not settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

_NEAR = 0.6
"""Similarity, without the prefix, above which a setting may be the one that is meant."""
_OF_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)\Z")
"""Variables that Kubernetes gives every pod for each service, such as one called ``gateway``."""
NO_LONGER_A_SETTING = "it is no longer a setting"


def settings_help(settings: type[BaseSettings]) -> list[str]:
    """Return a line for each setting, in the order of the class."""
    prefix = settings.model_config["env_prefix"]
    lines, defaults = [], dict[str, Any]()
    for name, field in settings.model_fields.items():
        # A default may follow from those of the fields before it.
        defaults[name] = field.get_default(call_default_factory=True, validated_data=defaults)
        variables = " or ".join(_variables(prefix, name, field))
        lines.append(f"{variables} ({_as_set(defaults[name])}): {field.description}")
    return lines


def misnamed_settings(
    settings: type[BaseSettings], names: Iterable[str], former: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each variable that has the prefix of settings and names none.

    Args:
        settings: The class of all settings.
        names: The names of all variables of the process.
        former: Reasons by former names, such as `NO_LONGER_A_SETTING`.
    """
    prefix = settings.model_config["env_prefix"]
    fields = settings.model_fields.items()
    known = [one for name, field in fields for one in _variables(prefix, name, field)]
    bare = {one.removeprefix(prefix): one for one in known}
    present = frozenset(names)
    for name in sorted(one for one in present if one.startswith(prefix) and one not in known):
        service = name.removesuffix("_PORT")
        if _OF_KUBERNETES.search(name) or f"{service}_SERVICE_HOST" in present:
            continue
        near = difflib.get_close_matches(name.removeprefix(prefix), bare, n=1, cutoff=_NEAR)
        meant = f"; {bare[near[0]]} may be meant" if near else ""
        yield f"{name} is ignored: {former.get(name) or f'no setting has this name{meant}'}"


def _variables(prefix: str, name: str, field: FieldInfo) -> Iterator[str]:
    if isinstance(field.validation_alias, AliasChoices):
        yield from map(str, field.validation_alias.choices)
    else:
        yield prefix + name.upper()


def _as_set(default: Any) -> str:
    """Return a default as it would be set; one that depends on the machine is this machine's."""
    if default is None or isinstance(default, SecretStr):
        return "empty"
    if isinstance(default, bool):
        return str(default).lower()
    return (f"{default:.15g}" if isinstance(default, float) else str(default)) or "empty"
