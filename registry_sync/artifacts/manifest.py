"""The canonical list of an artifact's files, and the digest over it. Pure.

One line per file, ``<sha256 of the file>  <relative path>``, in byte order of the UTF-8 paths,
each line ended by a newline. The artifact's digest is the SHA-256 of that text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry_sync.errors import UnsafePathError

UNSTORED_FILES = frozenset({"registered_model_meta"})
"""Files that MLflow itself adds to a downloaded folder: neither hashed nor stored."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)\Z")
_MAX_PATH_BYTES = 1024
_MAX_NAME_BYTES = 255
_MAX_NAMED_FILES = 3


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one artifact: SHA-256 (64 hexadecimal digits) by path.

    They are in byte order of the paths.
    """

    files: Mapping[str, str]

    @classmethod
    def of(cls, files: Mapping[str, str]) -> Manifest:
        """Return the manifest of ``files`` (path to SHA-256), in canonical order.

        Raises:
            UnsafePathError: A path is unsafe, or a file system may confuse two of them.
        """
        check_paths(files)
        return cls({path: files[path] for path in sorted(files, key=str.encode)})

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read a manifest's text.

        Raises:
            UnsafePathError: A path in it is unsafe.
            ValueError: The text is not a canonical manifest.
        """
        matches = [_LINE.match(line) for line in text.split("\n")[:-1]]
        files = {match[2]: match[1] for match in matches if match}
        manifest = cls.of(files)
        if manifest.text() != text:
            raise ValueError("the manifest is not in canonical form")
        return manifest

    def text(self) -> str:
        """Return the canonical text; its UTF-8 bytes are what the digest covers."""
        return "".join(f"{digest}  {path}\n" for path, digest in self.files.items())

    @property
    def digest(self) -> str:
        """The artifact's digest: ``sha256:`` and 64 hexadecimal digits."""
        return "sha256:" + hashlib.sha256(self.text().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FetchedArtifact:
    """The result of a fetch: a folder with its manifest, whose ``digest`` is the artifact's.

    Attributes:
        listing: Mark of the remote listing, to be compared with `Fetcher.remote_listing` later, or
            None if the storage offers neither ETag nor time.
        stable: Whether the upload has been unchanged for long enough.
    """

    folder: Path
    manifest: Manifest
    size_bytes: int
    listing: str | None
    stable: bool = True


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that could leave their folder or that a file system may confuse.

    Raises:
        UnsafePathError: The message names the path.
    """
    seen: dict[str, str] = {}
    for path in paths:
        flaw = _flaw(path)
        if flaw:
            raise UnsafePathError(f"the path {path!r} {flaw}")
        _check_confusion(path, seen)


def _flaw(path: str) -> str | None:
    """Return what is wrong with a path, or None."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    parts = path.split("/")
    checks = {
        "is empty": not path,
        "has a backslash": "\\" in path,
        "has a control character": any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in path),
        "is absolute": path.startswith("/"),
        "has an empty part": "" in parts,
        "has a part '.' or '..'": "." in parts or ".." in parts,
        "is too long": len(encoded) > _MAX_PATH_BYTES
        or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts),
    }
    return next((flaw for flaw, found in checks.items() if found), None)


def _check_confusion(path: str, seen: dict[str, str]) -> None:
    """Refuse a file or folder whose name differs from another only in case or Unicode form.

    ``seen`` maps the folded form of every file and folder so far to its spelling; a folder's
    spelling ends in ``/``, so a file and a folder of one name are confused too.
    """
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        prefix = "/".join(parts[:depth])
        spelling = prefix if depth == len(parts) else prefix + "/"
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", prefix).casefold())
        other = seen.setdefault(folded, spelling)
        if other != spelling:
            raise UnsafePathError(
                f"the paths {other!r} and {spelling!r} are the same to some file systems"
            )


def differences(known: Manifest, found: Manifest) -> str:
    """Return which files differ, such as ``changed: model.pkl; added: a, b and 7 more``."""
    kinds = {
        "changed": [p for p in found.files if known.files.get(p, found.files[p]) != found.files[p]],
        "added": [p for p in found.files if p not in known.files],
        "missing": [p for p in known.files if p not in found.files],
    }
    return "; ".join(f"{kind}: {_some(paths)}" for kind, paths in kinds.items() if paths)


def _some(paths: list[str]) -> str:
    """Return the first paths, and the count of all others."""
    named = ", ".join(paths[:_MAX_NAMED_FILES])
    more = len(paths) - _MAX_NAMED_FILES
    return f"{named} and {more} more" if more > 0 else named
