"""The ``--help`` of settings, and warnings about variables that are not settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

_NEAR = 0.85
"""Similarity above which a name counts as misspelt. Other programs may use the same prefix."""
NO_LONGER_A_SETTING = "it is no longer a setting"


def settings_help(settings: type[BaseSettings]) -> list[str]:
    """Return a line for each setting, in the order of the class."""
    prefix = settings.model_config["env_prefix"]
    return [
        f"{' or '.join(_variables(prefix, name, field))} ({_default(field)}): {field.description}"
        for name, field in settings.model_fields.items()
    ]


def misnamed_settings(
    settings: type[BaseSettings], names: Iterable[str], former: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each variable that has a former or a misspelt name of a setting.

    Args:
        settings: The class of all settings.
        names: The names of all variables of the process.
        former: Reasons by former names, such as `NO_LONGER_A_SETTING`.
    """
    prefix = settings.model_config["env_prefix"]
    fields = settings.model_fields.items()
    known = [one for name, field in fields for one in _variables(prefix, name, field)]
    for name in sorted(one for one in names if one.startswith(prefix) and one not in known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if name in former:
            yield f"{name} is ignored: {former[name]}"
        elif near:
            yield f"{name} is ignored: no setting has this name; {near[0]} may be meant"


def _variables(prefix: str, name: str, field: FieldInfo) -> Iterator[str]:
    if isinstance(field.validation_alias, AliasChoices):
        yield from map(str, field.validation_alias.choices)
    else:
        yield prefix + name.upper()


def _default(field: FieldInfo) -> str:
    """Return a default as it would be set; one that depends on the machine is this machine's."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or isinstance(default, SecretStr):
        return "empty"
    if isinstance(default, bool):
        return str(default).lower()
    return (f"{default:.15g}" if isinstance(default, float) else str(default)) or "empty"
