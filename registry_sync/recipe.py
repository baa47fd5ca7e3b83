"""What an own environment is made of, read from a model's files, and the digest over it. Pure.

The files were written by strangers and are handed to an installer, so only what is understood
here gets there: names with versions, constraints, hashes and package indexes. The installer would
put the values of our variables where a line says ``${NAME}``: no line with a ``$`` gets there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from registry_sync.errors import EnvironmentFailedError
from registry_sync.redaction import without_userinfo

OLDEST_PYTHON = (3, 10)
"""The oldest that the worker package runs on."""

_FORMAT = 1
_MAX_LINES = 2000
_SHOWN_CHARACTERS = 100
_PYTHON = re.compile(r"\s*(\d+)\.(\d+)")
_HASHES = re.compile(r"(?:\s+--hash[= ]\w+:[0-9a-fA-F]+)+\s*$")
_OPTION = re.compile(r"(-i|-c|--index-url|--extra-index-url|--constraint)[=\s]\s*(\S+)\s*$")
_CONSTRAINTS = frozenset({"-c", "--constraint"})


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
            name: value if isinstance(value, str) else tuple(map(without_userinfo, value))
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


@dataclass(slots=True)
class _Lines:
    """What was read so far."""

    requirements: set[str] = field(default_factory=set)
    constraints: set[str] = field(default_factory=set)
    indexes: list[str] = field(default_factory=list)


def read_recipe(
    python: str | None, requirements: str, *, here: str, beside: Callable[[str], str | None]
) -> Recipe:
    """Read what an own environment of a model is made of.

    Args:
        python: The Python version that the model was logged with; None: unknown.
        requirements: The content of ``requirements.txt``.
        here: ``major.minor`` of our Python, taken where the model names none.
        beside: Returns the content of a file beside ``requirements.txt``; None: there is none.

    Raises:
        EnvironmentFailedError: Its Python is too old, or a line is none that can be followed.
    """
    lines = _Lines()
    _read(requirements, lines.requirements, lines, beside)
    return Recipe(
        python=_python(python, here),
        requirements=tuple(sorted(lines.requirements)),
        constraints=tuple(sorted(lines.constraints)),
        indexes=tuple(dict.fromkeys(lines.indexes)),
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


def _read(
    text: str, into: set[str], lines: _Lines, beside: Callable[[str], str | None] | None
) -> None:
    """Sort lines into ``into`` and ``lines``; with ``beside``, constraint files are followed."""
    for count, line in enumerate(_logical(text)):
        if count >= _MAX_LINES:
            raise EnvironmentFailedError(f"requirements.txt has more than {_MAX_LINES} lines")
        if "$" in line:
            raise _expanded(line)
        if line.startswith("-"):
            _read_option(line, lines, beside)
        else:
            into.add(_requirement(line))


def _logical(text: str) -> Iterator[str]:
    """Yield lines without comments, continued ones joined."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        bare = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if bare:
            yield bare


def _read_option(line: str, lines: _Lines, beside: Callable[[str], str | None] | None) -> None:
    found = _OPTION.match(line)
    if found is None:
        raise _not_followed(line)
    option, value = found.groups()
    if option not in _CONSTRAINTS:
        if not _is_usable(value):
            raise _not_followed(line)
        lines.indexes.append(f"--extra-index-url {value}" if "extra" in option else f"-i {value}")
        return
    content = beside(value) if beside is not None else None
    if content is None:
        raise _not_followed(line)
    _read(content, lines.constraints, lines, None)


def _requirement(line: str) -> str:
    hashes = _HASHES.search(line)
    text = line[: hashes.start()] if hashes else line
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise _not_followed(line) from error
    if requirement.url and not _is_usable(requirement.url):
        raise _not_followed(line)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement) + (" " + " ".join(hashes[0].split()) if hashes else "")


def _is_usable(url: str) -> bool:
    """Whether the installer reads a URL as we do: a backslash at its end would go on below."""
    return url.startswith("https://") and "\\" not in url


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
    return without_userinfo(line)[:_SHOWN_CHARACTERS]
