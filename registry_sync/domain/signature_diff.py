"""What becomes different for callers where an alias goes from one signature to another. Pure.

What the old version takes by name or by position the new one must take too, and the answer must
have the same shape: a change that keeps that is *compatible*, every other one breaks some caller.
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
"""MLflow's lists of ``inputs``, ``outputs`` and ``params``, as a description has them."""


class OnSignatureChange(StrEnum):
    """What a changed signature means. ``REFUSE``: no alias follows the registry to a breaking one.

    ``IGNORE``: it is not even told. ``WARN``: it is.
    """

    IGNORE = "ignore"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class SignatureChange:
    """What is different, in words; at least one of both is not empty.

    Attributes:
        breaking: What some caller of the old version trips over.
        compatible: What none does.
    """

    breaking: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """All of it as a part of a sentence, bounded, the worst first."""
        both = [*self.breaking, *(f"{one} (compatible)" for one in self.compatible)]
        more = f"; and {len(both) - _MAX_CHANGES} more" if len(both) > _MAX_CHANGES else ""
        return "; ".join(both[:_MAX_CHANGES]) + more


def compare_signatures(before: Signature | None, after: Signature | None) -> SignatureChange | None:
    """Return what is different after; None: nothing is. None for a signature: there is none."""
    if before == after:
        return None
    if before is None or after is None:
        said = "it has no signature any more" if after is None else "it had no signature before"
        return SignatureChange(breaking=(said,))
    found = [
        *_fields("input", before.get("inputs"), after.get("inputs")),
        *_params(before.get("params"), after.get("params")),
        *_outputs(before.get("outputs"), after.get("outputs")),
    ]
    breaking = tuple(said for said, breaks in found if breaks)
    compatible = tuple(said for said, breaks in found if not breaks)
    return SignatureChange(breaking, compatible) if found else None


_Found = Iterator[tuple[str, bool]]
"""Sentences, and whether it breaks a caller."""


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
    """Callers read all of an answer: any difference may break one."""
    if before == after:
        return
    old, new = _spelled(before), _spelled(after)
    yield f"the outputs are {new}, were {old}" if old != new else "the outputs are others", True


def _by_name(fields: Any) -> dict[str | int, Mapping[str, Any]]:
    """Return the fields of a part by name, those without one by position."""
    given: Sequence[Any] = fields if isinstance(fields, list) else ()
    found: dict[str | int, Mapping[str, Any]] = {}
    for place, one in enumerate(given):
        if isinstance(one, Mapping):
            name = one.get("name")
            found[name if isinstance(name, str) else place] = one
    return found


def _is_optional(field: Mapping[str, Any]) -> bool:
    return field.get("required", True) is False


def _type(field: Mapping[str, Any]) -> str:
    """Spell a type: ``double``, or ``float32[-1, 4]`` of a tensor; what nests, by its kind."""
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
    """Return a name that somebody made up as it can be put into a sentence."""
    if isinstance(name, int):
        return f"number {name + 1}"
    return _bounded(name) if name.isprintable() else repr(name[:_MAX_NAME_CHARACTERS])


def _bounded(text: str) -> str:
    cut = len(text) > _MAX_NAME_CHARACTERS
    return f"{text[: _MAX_NAME_CHARACTERS - 1]}…" if cut else text
