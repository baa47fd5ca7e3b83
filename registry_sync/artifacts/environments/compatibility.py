"""The verdict on a model's requirements in the shared environment.

This process runs in the shared environment, like the workers that are forked in it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename

_NAMED = 3
_MINOR = re.compile(r"\d+\.\d+")
_REMEMBERED = 4096


class Verdict(StrEnum):
    """Whether a version may run in the shared environment; with ``WARN`` it may, but differs."""

    OK = "ok"
    WARN = "warn"
    REFUSE = "refuse"


class MismatchPolicy(StrEnum):
    """Reaction to unmet requirements; ``IGNORE`` lists them with the verdict ok."""

    IGNORE = "ignore"
    WARN = "warn"
    REFUSE = "refuse"


_MEANS = {
    MismatchPolicy.IGNORE: Verdict.OK,
    MismatchPolicy.WARN: Verdict.WARN,
    MismatchPolicy.REFUSE: Verdict.REFUSE,
}


@dataclass(frozen=True, slots=True)
class DependencyVerdict:
    """The verdict on a model's requirements; ``mismatches`` are the unmet ones, as texts."""

    status: Verdict = Verdict.OK
    mismatches: tuple[str, ...] = ()

    def as_body(self) -> dict[str, Any]:
        """Return the form that the description carries."""
        return {"status": self.status.value, "mismatches": list(self.mismatches)}

    @property
    def reason(self) -> str:
        """The reason of a refusal and the remedy, as a sentence for users."""
        more = len(self.mismatches) - _NAMED
        named = ", ".join(self.mismatches[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        return (
            f"its requirements are not met here: {named}; set the tag gateway.environment to own, "
            "or log it again with what is here"
        )


def judge(
    requirements: Iterable[str], on_mismatch: MismatchPolicy, *, python: str | None = None
) -> DependencyVerdict:
    """Compare requirements with what is installed in this process's environment.

    ``python`` is the version of Python that the model was logged with, or None if it is not known.
    Another minor version is a mismatch: pickled code may crash the interpreter.
    """
    found = (*_mismatch_of_python(python), *_mismatches(tuple(requirements)))
    return DependencyVerdict(_MEANS[on_mismatch] if found else Verdict.OK, found)


@lru_cache(maxsize=_REMEMBERED)
def _mismatches(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """Compare once per process, which keeps the libraries that it started with."""
    return tuple(mismatch for line in requirements if (mismatch := _mismatch(line)))


def _mismatch_of_python(logged: str | None) -> tuple[str, ...]:
    found = _MINOR.match(logged or "")
    here = platform.python_version()
    if found is None or here.startswith(f"{found[0]}."):
        return ()
    return (f"Python (here {here}, logged with {found[0]})",)


def _mismatch(line: str) -> str | None:
    """Return the text of an unmet requirement, or None if it is met or does not apply."""
    try:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return None
        versions = _of_wheel(requirement.url) if requirement.url else requirement.specifier
    except (InvalidRequirement, ValueError, KeyError, RecursionError):
        return f"{line[:100]} (cannot be compared)"
    wanted = f"required {versions}" if versions else "required"
    try:
        here = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} (not here, {wanted})"
    if versions.contains(here, prereleases=True):
        return None
    return f"{requirement.name} (here {here}, {wanted})"


def _of_wheel(url: str) -> SpecifierSet:
    """Return the version in a wheel's URL."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return SpecifierSet(f"=={parse_wheel_filename(name)[1]}")
