"""What an own environment is made of, read from a model's files, and the digest over it. Pure.

The files were written by strangers and are handed to an installer, so only what is understood
here gets there: names with versions, constraints, hashes and package indexes. The installer would
put the values of our variables where a line says ``${NAME}``: no line with a ``$`` gets there.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from gateway.system.logs import redacted
from registry_sync.artifacts.requirements_file import RequirementsFile
from registry_sync.errors import EnvironmentFailedError

OLDEST_PYTHON = (3, 10)
"""The oldest that the worker package runs on."""

_FORMAT = 1
_SHOWN_CHARACTERS = 100
_PYTHON = re.compile(r"\s*(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an own environment is made of, normalised: equal ones share one environment.

    Attributes:
        python: ``major.minor``.
        requirements: Requirement lines, sorted.
        constraints: Lines of the same form that only bound versions, sorted.
        indexes: Options that name package indexes, in their order.
    """

    python: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 over what is shown of it, in hexadecimal: no password changes it."""
        parts = [_FORMAT, *self.shown().values()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def shown(self) -> dict[str, Any]:
        """Return what may be read by anybody: without the users and passwords of URLs."""
        return {
            name: value if isinstance(value, str) else tuple(map(redacted, value))
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class OwnEnvironment:
    """An environment that is built.

    Attributes:
        digest: Of its recipe.
        python: The path of its interpreter.
    """

    digest: str
    python: str


def read_recipe(python: str | None, found: RequirementsFile, *, here: str) -> Recipe:
    """Return what an own environment of a model is made of.

    Args:
        python: The Python version that the model was logged with; None: unknown.
        found: What its ``requirements.txt`` says.
        here: ``major.minor`` of our Python, taken where the model names none.

    Raises:
        EnvironmentFailedError: Its Python is too old, or a line is none that can be followed.
    """
    if found.fault:
        raise EnvironmentFailedError(found.fault)
    for line in (*found.unread, *found.sourcing):
        raise _expanded(line) if "$" in line else _not_followed(line)
    return Recipe(
        python=_python(python, here),
        requirements=tuple(sorted({str(line) for line in found.requirements})),
        constraints=tuple(sorted({str(line) for line in found.constraints})),
        indexes=tuple(dict.fromkeys(found.indexes)),
    )


def _python(wanted: str | None, here: str) -> str:
    found = _PYTHON.match(wanted or here) or _PYTHON.match(here)
    if found is None:
        raise AssertionError(f"{here!r} is no Python version")
    version = (int(found[1]), int(found[2]))
    if version < OLDEST_PYTHON:
        raise EnvironmentFailedError(
            f"unsupported: it was logged with Python {version[0]}.{version[1]}, and an environment "
            "of its own needs 3.10 or newer; log it again, or set the tag gateway.environment to "
            "shared",
            failure=EnvironmentFailedError.UNSUPPORTED,
        )
    return f"{version[0]}.{version[1]}"


def _expanded(line: str) -> EnvironmentFailedError:
    return EnvironmentFailedError(
        f"unsupported: no environment is built from the line {_shown(line)!r} of requirements.txt: "
        "variables are not expanded in it, so it may have no $; log it again with what the line is "
        "to say",
        failure=EnvironmentFailedError.UNSUPPORTED,
    )


def _not_followed(line: str) -> EnvironmentFailedError:
    return EnvironmentFailedError(
        f"no environment is built from the line {_shown(line)!r} of requirements.txt: only "
        "packages by name, or as a wheel from an https URL, constraint files beside it, and "
        "package indexes on https are"
    )


def _shown(line: str) -> str:
    return redacted(line)[:_SHOWN_CHARACTERS]
