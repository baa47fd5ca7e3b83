"""Differences between two signatures, as callers of an alias see them. Pure.

A change is *compatible* if the new version accepts every request of the old one and answers in the
same shape; every other change breaks some caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_MAX_CHANGES = 6
_MAX_NAME_CHARACTERS = 64
_NOTHING = "nothing"

Signature = Mapping[str, Any]
"""MLflow's ``inputs``, ``outputs`` and ``params``, as in a description."""


class SignaturePolicy(StrEnum):
    """Reaction to a changed signature.

    ``IGNORE``: it is not reported. ``WARN``: it is. ``REFUSE``: no alias follows the registry to a
    version whose signature breaks callers.
    """

    IGNORE = "ignore"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class SignatureChange:
    """Differences in words; at least one tuple is not empty.

    Attributes:
        breaking: Differences that break some caller of the old version.
        compatible: Differences that break no caller.
    """

    breaking: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The differences as part of a sentence, bounded, breaking ones first."""
        both = [*self.breaking, *(f"{one} (compatible)" for one in self.compatible)]
        more = f"; and {len(both) - _MAX_CHANGES} more" if len(both) > _MAX_CHANGES else ""
        return "; ".join(both[:_MAX_CHANGES]) + more


def compare_signatures(before: Signature | None, after: Signature | None) -> SignatureChange | None:
    """Return the differences, or None; a model without a signature has the signature None."""
    if before == after:
        return None
    if before is None or after is None:
        change = "it has no signature any more" if after is None else "it had no signature before"
        return SignatureChange(breaking=(change,))
    found = [
        *_fields("input", before.get("inputs"), after.get("inputs")),
        *_params(before.get("params"), after.get("params")),
        *_outputs(before.get("outputs"), after.get("outputs")),
    ]
    breaking = tuple(text for text, breaks in found if breaks)
    compatible = tuple(text for text, breaks in found if not breaks)
    return SignatureChange(breaking, compatible) if found else None


_Found = Iterator[tuple[str, bool]]
"""Differences in words, and whether each breaks a caller."""


def _fields(what: str, before: Any, after: Any) -> _Found:
    old, new = _by_name(before), _by_name(after)
    for name in old:
        if name not in new:
            yield f"{what} {_shown(name)} is gone", True
    for name, one in new.items():
        if name not in old:
            optional = _is_optional(one)
            how = "optional" if optional else "required"
            yield f"{what} {_shown(name)} ({_type(one)}) is new and {how}", not optional
        elif _type(one) != _type(old[name]):
            yield f"{what} {_shown(name)} is {_type(one)}, was {_type(old[name])}", True
        elif _is_optional(one) != _is_optional(old[name]):
            optional = _is_optional(one)
            yield (
                f"{what} {_shown(name)} is now {'optional' if optional else 'required'}",
                (not optional),
            )
    kept = [name for name in new if name in old]
    if kept != [name for name in old if name in new] or list(new)[: len(kept)] != kept:
        yield f"the {what}s are in another order", True


def _params(before: Any, after: Any) -> _Found:
    old, new = _by_name(before), _by_name(after)
    for name in old:
        if name not in new:
            yield f"param {_shown(name)} is gone", True
    for name, one in new.items():
        if name not in old:
            yield f"param {_shown(name)} ({_type(one)}) is new and has a default", False
        elif (_type(one), one.get("shape")) != (_type(old[name]), old[name].get("shape")):
            yield f"param {_shown(name)} is {_type(one)}, was {_type(old[name])}", True
        elif one.get("default") != old[name].get("default"):
            yield f"param {_shown(name)} has another default", False


def _outputs(before: Any, after: Any) -> _Found:
    """Yield a difference of the outputs; any may break a caller."""
    if before == after:
        return
    old, new = _spelled(before), _spelled(after)
    yield f"the outputs are {new}, were {old}" if old != new else "the outputs are others", True


def _by_name(fields: Any) -> dict[str | int, Mapping[str, Any]]:
    """Return the fields by name, or by position where they have no name."""
    given: Sequence[Any] = fields if isinstance(fields, list) else ()
    found: dict[str | int, Mapping[str, Any]] = {}
    for position, one in enumerate(given):
        if isinstance(one, Mapping):
            name = one.get("name")
            found[name if isinstance(name, str) else position] = one
    return found


def _is_optional(field: Mapping[str, Any]) -> bool:
    return field.get("required", True) is False


def _type(field: Mapping[str, Any]) -> str:
    """Return the text of a type, such as ``double`` or, for a tensor, ``float32[-1, 4]``."""
    spec = field.get("tensor-spec")
    if isinstance(spec, Mapping):
        return _bounded(f"{spec.get('dtype')}{spec.get('shape')}")
    inner = {key: value for key, value in field.items() if key not in ("name", "required", "type")}
    of = {key: value for key, value in inner.items() if key not in ("default", "shape")}
    return _bounded(f"{field.get('type')}" + (f" of {of}" if of else ""))


def _spelled(fields: Any) -> str:
    spelled = [
        f"{_shown(name)} ({_type(one)})" if isinstance(name, str) else _type(one)
        for name, one in _by_name(fields).items()
    ]
    more = ", …" if len(spelled) > _MAX_CHANGES else ""
    return ", ".join(spelled[:_MAX_CHANGES]) + more or _NOTHING


def _shown(name: str | int) -> str:
    """Return a user's name in a form that fits a sentence."""
    if isinstance(name, int):
        return f"number {name + 1}"
    return _bounded(name) if name.isprintable() else repr(name[:_MAX_NAME_CHARACTERS])


def _bounded(text: str) -> str:
    cut = len(text) > _MAX_NAME_CHARACTERS
    return f"{text[: _MAX_NAME_CHARACTERS - 1]}…" if cut else text
