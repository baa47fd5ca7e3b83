"""Verification of an artifact's bytes by the worker that will run them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.worker.process import guarded_read

_READ_BYTES = 1024 * 1024
_MOST_MANIFEST_BYTES = 256 * 1024 * 1024
_SEPARATOR = "  "
_SHA256_HEX_DIGITS = 64
_NOT_AS_PROMISED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of the system for a missing file, or one of another kind."""


class IntegrityError(Exception):
    """The folder differs from its manifest. The message names the difference."""


class UnreadableError(Exception):
    """The system refused a read, which proves nothing about the bytes.

    The message names the file and the system's error, which is the cause.
    """


def verify(folder: Path, manifest: Path, digest: str) -> None:
    """Verify that ``folder`` has exactly the files of ``manifest``, with ``digest``.

    Args:
        folder: The artifact.
        manifest: One line ``<sha256>  <relative path>`` per file, in byte order of the paths.
        digest: ``sha256:`` and the digest of the manifest itself.

    Raises:
        IntegrityError: A file or the manifest is missing, extra, changed or not a plain file.
        UnreadableError: Something could not be read.
    """
    promised = read_manifest(manifest, digest)
    present = dict(_plain_files(folder))
    if missing := sorted(promised.keys() - present.keys()):
        raise IntegrityError(f"{_named(missing)} missing from the artifact")
    if extra := sorted(present.keys() - promised.keys()):
        raise IntegrityError(f"{_named(extra)} not in the manifest")
    for path in sorted(promised):
        if _sha256(present[path], path) != promised[path]:
            raise IntegrityError(f"{path!r} is not the file of the manifest")


def read_manifest(manifest: Path, digest: str) -> dict[str, str]:
    """Return the SHA-256 (hexadecimal) of each relative path.

    Raises:
        IntegrityError: The manifest is missing, is malformed or has another digest.
        UnreadableError: The manifest could not be read.
    """
    try:
        with _reading("the manifest"):
            data = guarded_read.read_file(manifest, _MOST_MANIFEST_BYTES)
    except guarded_read.DamagedFileError as error:
        raise IntegrityError(f"the manifest cannot be read: it {error}") from error
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError("the manifest does not have the digest of the artifact")
    entries: dict[str, str] = {}
    lines = data.decode("utf-8", errors="surrogateescape").split("\n")[:-1]
    for number, line in enumerate(lines, start=1):
        sha256, separator, path = line.partition(_SEPARATOR)
        if not (separator and path and len(sha256) == _SHA256_HEX_DIGITS):
            raise IntegrityError(f"line {number} of the manifest is malformed")
        entries[path] = sha256
    return entries


def _plain_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the relative path (with ``/``) and the absolute path of every file; refuse links."""
    with _reading("the artifact's folder"):
        if stat.S_ISLNK(folder.lstat().st_mode):
            raise IntegrityError("the artifact's folder is a link")
    pending = [(str(folder), "")]
    while pending:
        directory, prefix = pending.pop()
        what = f"the folder {prefix!r}" if prefix else "the artifact's folder"
        with _reading(what), os.scandir(directory) as scan:
            entries = list(scan)
        for entry in entries:
            relative = prefix + entry.name
            with _reading(repr(relative)):
                mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                pending.append((entry.path, relative + "/"))
            elif stat.S_ISREG(mode):
                yield relative, entry.path
            else:
                raise IntegrityError(f"{relative!r} is a link or another special file")


def _sha256(path: str, relative: str) -> str:
    digest = hashlib.sha256()
    with _reading(repr(relative)):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  # opened by descriptor
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Convert errors of the system: missing or other kinds of files, or refused reads."""
    try:
        yield
    except OSError as error:
        message = f"{what} cannot be read: {error.strerror or type(error).__name__}"
        if error.errno in _NOT_AS_PROMISED:
            raise IntegrityError(message) from error
        raise UnreadableError(message) from error


def _named(paths: list[str]) -> str:
    """Return the first path and the count of all others, as a subject with its verb."""
    if len(paths) == 1:
        return f"{paths[0]!r} is"
    return f"{paths[0]!r} and {len(paths) - 1} more are"
