"""A YAML reader for untrusted text: checks the events before it builds values.

Building values recurses, in C without a limit, and repeats every alias and merge key: a few
hundred bytes can take all memory. Events cost as much as the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

_MAX_DEPTH = 100
_MAX_VALUES = 200_000
_MAX_ALIASES = 1000
_MAX_NUMBER_CHARACTERS = 100

_MERGE_TAG = "tag:yaml.org,2002:merge"
_NUMBER = re.compile(r"[-+.:_0-9]+")
"""Text that may be a number; ``1:1:1…`` is one too, and takes quadratic time."""

# Safe: makes plain values only. The C loader is used where libyaml is installed.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNREADABLE = (
    yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, LookupError,
    ArithmeticError,
)  # fmt: skip
"""Errors of PyYAML about a text; the last four about values that do not fit their tags."""


class UnreadableYamlError(ValueError):
    """The text is not YAML, or exceeds the limits."""


def load(text: bytes) -> Any:
    """Return the value of a YAML text, made of plain values only.

    Raises:
        UnreadableYamlError: The text is broken, too deep, too large, or has a merge key.
    """
    try:
        _check(text)
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    except UnreadableYamlError:
        raise
    except _UNREADABLE as error:
        raise UnreadableYamlError(type(error).__name__) from error


@dataclass(slots=True)
class _Open:
    """An open list or mapping: its anchor, and its number of values so far."""

    anchor: str | None
    values: int = 1


def _check(text: bytes) -> None:
    """Check the limits, counting the values of every alias."""
    sizes: dict[str, int] = {}
    nested = [_Open(None)]
    aliases = 0
    for event in yaml.parse(text, Loader=_LOADER):
        match event:
            case yaml.CollectionStartEvent():
                nested.append(_Open(event.anchor))
                _refuse_if(len(nested) > _MAX_DEPTH, f"nested more than {_MAX_DEPTH} deep")
                continue
            case yaml.CollectionEndEvent():
                ended = nested.pop()
                anchor, values = ended.anchor, ended.values
            case yaml.ScalarEvent():
                _check_scalar(event)
                anchor, values = event.anchor, 1
            case yaml.AliasEvent():
                aliases += 1
                _refuse_if(aliases > _MAX_ALIASES, f"more than {_MAX_ALIASES} aliases")
                anchor, values = None, sizes.get(str(event.anchor), 0)
                _refuse_if(values == 0, "an alias inside its own anchor")
            case _:
                continue
        nested[-1].values += values
        _refuse_if(nested[-1].values > _MAX_VALUES, f"more than {_MAX_VALUES} values")
        if anchor is not None:
            sizes[anchor] = values


def _check_scalar(event: Any) -> None:
    """Refuse merge keys, and numbers that take long to read."""
    plain = not event.style and event.tag is None
    _refuse_if(event.tag == _MERGE_TAG or (plain and event.value == "<<"), "a merge key")
    _refuse_if(
        (plain or event.tag is not None)
        and len(event.value) > _MAX_NUMBER_CHARACTERS
        and _NUMBER.fullmatch(event.value) is not None,
        f"a number of more than {_MAX_NUMBER_CHARACTERS} digits",
    )


def _refuse_if(found: bool, what: str) -> None:
    if found:
        raise UnreadableYamlError(what)
