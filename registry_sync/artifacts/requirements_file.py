"""A bounded reader of a model's ``requirements.txt``, which is untrusted.

Building an environment and comparing with installed packages use the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gateway.system.logs import redacted

NAME = "requirements.txt"

_MAX_BYTES = 2**20  # a locked file has some dozens of hashes for each package
_MAX_LINES = 2000
_SHOWN_CHARACTERS = 80
_COMMENT = re.compile(r"(?:^|\s)#")
_HASH = re.compile(r"[= ]\w+:[0-9a-fA-F]+")
_OPTION = re.compile(r"(-i|-c|--index-url|--extra-index-url|--constraint)[=\s]\s*(\S+)")
_CONSTRAINTS = frozenset({"-c", "--constraint"})
_SOURCING = re.compile(
    r"(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host|--pre"
    r"|--prefer-binary|--only-binary|--no-binary|--require-hashes)(?=[=\s]|$)"
)

ReadSibling = Callable[[str], str | None]
"""Returns the text of a file in the same folder, or None if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Line:
    """A requirement or constraint with a normalised name; ``hashes`` are its ``--hash`` options."""

    requirement: Requirement
    hashes: str = ""

    def __str__(self) -> str:
        """The line as an installer reads it."""
        return f"{self.requirement}{self.hashes}"


@dataclass(slots=True)
class RequirementsFile:
    """The sorted lines, each list in the file's order.

    Attributes:
        constraints: Lines which bound versions and require nothing.
        indexes: Options that name package indexes on https.
        sourcing: Ignored options about the origin of packages.
        unread: All other lines.
        fault: Why the file cannot be read as a whole, as a clause, or None.
    """

    requirements: list[Line] = field(default_factory=list)
    constraints: list[Line] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    sourcing: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    fault: str | None = None

    def to_compare(self) -> list[str]:
        """Return what an environment must meet, one line each, without hashes and passwords.

        Includes the constraints on required packages, and the unread lines, which never count as
        met.
        """
        names = {line.requirement.name for line in self.requirements}
        bounds = [line for line in self.constraints if line.requirement.name in names]
        lines = [str(line.requirement) for line in (*self.requirements, *bounds)]
        # As text that no comparison parses as a requirement.
        words = [f"the line {redacted(line)[:_SHOWN_CHARACTERS]!r}" for line in self.unread]
        words += [self.fault] if self.fault else []
        return list(dict.fromkeys([*map(redacted, lines), *words]))


def read(folder: Path) -> RequirementsFile | None:
    """Return the file of a model's folder, or None if it is missing.

    Raises:
        OSError: The disk refused.
    """
    file = folder / NAME
    if not file.exists():
        return None
    text = _text(file)
    if text is None:
        return RequirementsFile(fault=f"{NAME} is larger than {_MAX_BYTES} bytes, or not a file")

    def read_sibling(name: str) -> str | None:
        return _text(folder / name) if Path(name).name == name else None

    return parse(text, read_sibling)


def parse(text: str, read_sibling: ReadSibling) -> RequirementsFile:
    """Sort the lines of a text, and of the constraint files that it names. Pure."""
    reader = _Reader(read_sibling)
    reader.read(text, reader.found.requirements)
    return reader.found


class _Reader:
    """Sorts the lines of a file and of its constraint files, once each."""

    def __init__(self, read_sibling: ReadSibling) -> None:
        self.found = RequirementsFile()
        self._read_sibling = read_sibling
        self._followed: set[str] = set()
        self._lines_left = _MAX_LINES

    def read(self, text: str, into: list[Line]) -> None:
        """Sort lines; requirements go into ``into``."""
        for line in _logical(text):
            self._lines_left -= 1
            if self._lines_left < 0:
                self.found.fault = f"{NAME} has more than {_MAX_LINES} lines"
                return
            if "$" in line:  # an installer may substitute a variable
                self.found.unread.append(line)
            elif line.startswith("-"):
                self._read_option(line)
            elif (requirement := _line(line)) is not None:
                into.append(requirement)
            else:
                self.found.unread.append(line)

    def _read_option(self, line: str) -> None:
        option = _OPTION.fullmatch(line)
        if option is not None and option[1] in _CONSTRAINTS:
            self._follow(line, option[2])
        elif option is not None and _is_usable(option[2]):
            name = "--extra-index-url" if "extra" in option[1] else "-i"
            self.found.indexes.append(f"{name} {option[2]}")
        elif _SOURCING.match(line):
            self.found.sourcing.append(line)
        else:
            self.found.unread.append(line)

    def _follow(self, line: str, name: str) -> None:
        if name in self._followed:
            return
        self._followed.add(name)
        if (text := self._read_sibling(name)) is None:
            self.found.unread.append(line)
        else:
            self.read(text, self.found.constraints)


def _text(file: Path) -> str | None:
    """Return the text of a small file, or None."""
    if not file.is_file() or file.stat().st_size > _MAX_BYTES:
        return None
    return file.read_text(encoding="utf-8-sig", errors="replace")


def _logical(text: str) -> Iterator[str]:
    """Yield lines with continuations joined, comments removed and spaces collapsed."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        if bare := " ".join(_COMMENT.split(line, maxsplit=1)[0].split()):
            yield bare


def _line(text: str) -> Line | None:
    """Return a requirement or constraint, or None if the text is neither."""
    wanted, *hashes = text.split(" --hash")
    if not all(map(_HASH.fullmatch, hashes)):
        return None
    try:
        requirement = Requirement(wanted)
        str(requirement)
    except (InvalidRequirement, RecursionError):
        return None
    if requirement.url and not _is_usable(requirement.url):
        return None
    requirement.name = canonicalize_name(requirement.name)
    return Line(requirement, "".join(f" --hash{one}" for one in hashes))


def _is_usable(url: str) -> bool:
    """Whether a URL is safe for an installer: a backslash at the end would join lines."""
    return url.startswith("https://") and "\\" not in url
