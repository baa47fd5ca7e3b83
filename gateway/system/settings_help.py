"""The ``--help`` of settings: every variable with its default and its meaning."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings


def settings_help(settings: type[BaseSettings]) -> list[str]:
    """Return a line for each setting, in the order of the class."""
    prefix = settings.model_config["env_prefix"]
    return [
        f"{' or '.join(_variables(prefix, name, field))} ({_default(field)}): {field.description}"
        for name, field in settings.model_fields.items()
    ]


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
