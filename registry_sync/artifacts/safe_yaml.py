"""YAML by strangers: read as a stream of events first, and as values only where those are few.

A YAML parser makes values by calling itself, in C without a limit, and repeats whatever an alias or
a merge key names: a few hundred bytes can take all memory, a few thousand the whole process. The
stream of events costs what the text costs.
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
"""What may be read as a number by digits; ``1:1:1…`` is one too, in time that grows by the square
of its length."""

# A safe loader, the fast one where libyaml is there: it makes no objects.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNREADABLE = (
    yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, LookupError,
    ArithmeticError,
)  # fmt: skip
"""What PyYAML raises about a text; the last four about values that their tag does not fit."""


class UnreadableYamlError(ValueError):
    """It is no YAML, or not of the kind that anybody writes."""


def load(text: bytes) -> Any:
    """Return the value that a YAML text has. Only plain values: nothing in it can run.

    Raises:
        UnreadableYamlError: It is broken, nested too deeply, repeats itself, or merges.
    """
    try:
        _check(text)
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 - as said above
    except UnreadableYamlError:
        raise
    except _UNREADABLE as error:
        raise UnreadableYamlError(type(error).__name__) from error


@dataclass(slots=True)
class _Open:
    """A list or a mapping that has begun: its anchor, and how many values it has so far."""

    anchor: str | None
    values: int = 1


def _check(text: bytes) -> None:
    """Count what the text would become, with everything that it repeats.

    Raises:
        UnreadableYamlError: Too much.
    """
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
                # What has not ended contains itself.
                _refuse_if(values == 0, "an alias of what has not ended")
            case _:
                continue
        nested[-1].values += values
        _refuse_if(nested[-1].values > _MAX_VALUES, f"more than {_MAX_VALUES} values")
        if anchor is not None:
            sizes[anchor] = values


def _check_scalar(event: Any) -> None:
    """Refuse what would be merged, and numbers that take long to read.

    Raises:
        UnreadableYamlError: It is one of them.
    """
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
