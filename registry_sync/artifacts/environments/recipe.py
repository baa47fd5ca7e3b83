"""The recipe of an own environment, read from a model's files, and its digest. Pure.

The files are not trusted, and an installer reads them. Therefore a recipe has only what this module
understands: names with versions, constraints, hashes and package indexes. It has no line with a
``$``, because the installer replaces ``${NAME}`` by the value of a variable of this process.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from packaging.requirements import Requirement

from gateway.system.logs import redacted
from registry_sync.artifacts.requirements_file import RequirementsFile
from registry_sync.errors import EnvironmentFailedError

OLDEST_PYTHON = (3, 10)
"""The oldest Python that the worker runs on."""
WORKER_NEEDS = ("orjson>=3.10",)
"""The packages that the worker itself imports. A recipe has those that the model does not require
itself; of these, the worker takes any version."""

_FORMAT = 1
_SHOWN_CHARACTERS = 100
_PYTHON = re.compile(r"\s*(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The content of an own environment, normalised: equal recipes share one environment.

    Attributes:
        python: ``major.minor``.
        requirements: Requirement lines of the model and of the worker, sorted.
        constraints: Lines of the same form that only bound versions, sorted.
        indexes: Options that name package indexes, in the order of the file.
    """

    python: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 over `shown`, in hexadecimal; passwords do not change it."""
        parts = [_FORMAT, *self.shown().values()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def shown(self) -> dict[str, Any]:
        """Return the fields without the users and passwords of URLs."""
        return {
            name: value if isinstance(value, str) else tuple(map(redacted, value))
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class OwnEnvironment:
    """A built environment: its recipe's digest, and the path of its interpreter."""

    digest: str
    python: str


def read_recipe(python: str | None, found: RequirementsFile, *, here: str) -> Recipe:
    """Return the recipe of a model's own environment from its ``requirements.txt``.

    ``python`` is the version that the model was logged with, or None if unknown: then ``here``,
    this Python's ``major.minor``, is used.

    Raises:
        EnvironmentFailedError: The model's Python is too old, or a line is not allowed.
    """
    if found.fault:
        raise EnvironmentFailedError(found.fault)
    for line in (*found.unread, *found.sourcing):
        raise _expanded(line) if "$" in line else _not_followed(line)
    by_model = {one.requirement.name for one in found.requirements if not one.requirement.marker}
    needs = (one for one in WORKER_NEEDS if Requirement(one).name not in by_model)
    return Recipe(
        python=_python(python, here),
        requirements=tuple(sorted({*map(str, found.requirements), *needs})),
        constraints=tuple(sorted({*map(str, found.constraints)})),
        indexes=tuple(dict.fromkeys(found.indexes)),
    )


def _python(logged: str | None, here: str) -> str:
    found = _PYTHON.match(logged or here) or _PYTHON.match(here)
    if found is None:
        raise AssertionError(f"{here!r} is not a Python version")
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
        "variables are not expanded, so a line may have no $; log it again with the value instead",
        failure=EnvironmentFailedError.UNSUPPORTED,
    )


def _not_followed(line: str) -> EnvironmentFailedError:
    return EnvironmentFailedError(
        f"no environment is built from the line {_shown(line)!r} of requirements.txt: a line must "
        "name a package, a wheel at an https URL, a constraint file beside it, or a package index "
        "on https"
    )


def _shown(line: str) -> str:
    return redacted(line)[:_SHOWN_CHARACTERS]
