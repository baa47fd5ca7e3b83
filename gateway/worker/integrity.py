"""Whether the bytes on disk are those of the manifest, checked by the one who will run them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_READ_BYTES = 1024 * 1024
_SEPARATOR = "  "
_SHA256_HEX_DIGITS = 64


class IntegrityError(Exception):
    """The folder is not what its manifest and digest say. The message says what differs."""


def verify(folder: Path, manifest: Path, digest: str) -> None:
    """Check that ``folder`` holds exactly the files of ``manifest``, and that has ``digest``.

    Args:
        folder: The artifact.
        manifest: One line ``<sha256>  <relative path>`` per file, in byte order of the paths.
        digest: ``sha256:`` and the digest of the manifest itself.

    Raises:
        IntegrityError: A file is missing, extra, changed or no plain file; or the manifest is.
    """
    promised = read_manifest(manifest, digest)
    present = dict(_plain_files(folder))
    if missing := sorted(promised.keys() - present.keys()):
        raise IntegrityError(f"{_named(missing)} missing from the artifact")
    if extra := sorted(present.keys() - promised.keys()):
        raise IntegrityError(f"{_named(extra)} not in the manifest")
    for path in sorted(promised):
        if _sha256(present[path]) != promised[path]:
            raise IntegrityError(f"{path!r} is not the file of the manifest")


def read_manifest(manifest: Path, digest: str) -> dict[str, str]:
    """Return the SHA-256 (hexadecimal) of each relative path.

    Raises:
        IntegrityError: The manifest cannot be read, is malformed or has another digest.
    """
    try:
        data = manifest.read_bytes()
    except OSError as error:
        raise IntegrityError(f"the manifest cannot be read: {error.strerror}") from error
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError("the manifest does not have the digest of the artifact")
    entries: dict[str, str] = {}
    for line in data.decode("utf-8", errors="surrogateescape").split("\n")[:-1]:
        sha256, separator, path = line.partition(_SEPARATOR)
        if not (separator and path and len(sha256) == _SHA256_HEX_DIGITS):
            raise IntegrityError("the manifest has a line that is none")
        entries[path] = sha256
    return entries


def _plain_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield relative path (``/`` between names) and absolute path of every file, links refused."""
    pending = [(str(folder), "")]
    while pending:
        directory, prefix = pending.pop()
        try:
            with os.scandir(directory) as scan:
                entries = list(scan)
        except OSError as error:
            raise IntegrityError(f"the artifact cannot be read: {error.strerror}") from error
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            relative = prefix + entry.name
            if stat.S_ISDIR(mode):
                pending.append((entry.path, relative + "/"))
            elif stat.S_ISREG(mode):
                yield relative, entry.path
            else:
                raise IntegrityError(f"{relative!r} is a link or another special file")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  # opened by descriptor
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise IntegrityError(f"a file cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _named(paths: list[str]) -> str:
    """Return the first of ``paths`` and how many more there are, as a subject."""
    if len(paths) == 1:
        return f"{paths[0]!r} is"
    return f"{paths[0]!r} and {len(paths) - 1} more are"
