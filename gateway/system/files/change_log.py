"""A file of documents, each on a line of its own with its checksum.

Adding a document costs its own size, however long the file is. A crash leaves at most one torn line
at the end. It was not acknowledged, so it is ignored, and the next addition cuts it off.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.system.files.atomic_files import replace_file, set_aside, sync_folder
from gateway.worker.process.guarded_read import DamagedFileError, read_file

_MODE = 0o600
_CHECKSUM_DIGITS = 64
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_log = structlog.get_logger("gateway.system.files.change_log")


@dataclass(frozen=True, slots=True)
class LogContent:
    """The content of a file of changes.

    Attributes:
        documents: The undamaged documents, in order.
        damaged: The number of damaged lines, without a torn last one.
    """

    documents: tuple[bytes, ...] = ()
    damaged: int = 0


@dataclass(slots=True)
class _Known:
    """The known state of a file.

    Attributes:
        whole_bytes: Its size without a torn line, or None if it was not read.
        is_named: Whether its name was synced.
    """

    whole_bytes: int | None = None
    is_named: bool = False


class ChangeLog:
    """A file of changes, of which at most ``most_bytes`` are read.

    Blocking: call from a thread, one call at a time.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._known = _Known()

    def size_bytes(self) -> int:
        """Return its size, or 0 if it is missing."""
        return size_bytes(self.path)

    def read(self) -> LogContent:
        """Return its documents; none if it is missing.

        Raises:
            OSError: It cannot be read.
            DamagedFileError: It is too long, or not a regular file.
        """
        try:
            content = read_file(self.path, self._most_bytes)
        except FileNotFoundError:
            self._known = _Known(0)
            return LogContent()
        stray, *lines = content.split(b"\n")  # each line begins with its line break
        documents = [_document(line) for line in lines]
        whole_bytes = len(content)
        if documents and documents[-1] is None:
            whole_bytes -= 1 + len(lines[-1])
        self._known.whole_bytes = whole_bytes
        damaged = documents[:-1].count(None) - lines[:-1].count(b"") + bool(stray)
        return LogContent(tuple(one for one in documents if one is not None), damaged)

    def add(self, documents: Iterable[bytes]) -> None:
        """Add documents without line breaks; they are on disk when this returns.

        Raises:
            OSError: The disk refused; the file is unchanged, or that is logged.
        """
        add_to_each([self], documents)

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenLog]:
        """Open it for additions, creating it if need be.

        Raises:
            OSError: The disk refused; the file is unchanged.
        """
        whole_bytes = self._make_ready()
        descriptor = os.open(self.path, _FLAGS, _MODE)
        try:
            if os.fstat(descriptor).st_size > whole_bytes:
                os.ftruncate(descriptor, whole_bytes)
            yield OpenLog(self.path, descriptor, self._known)
        finally:
            with contextlib.suppress(OSError):  # the additions are on disk already
                os.close(descriptor)

    def _make_ready(self) -> int:
        """Set an unusable file aside; return the size without a torn line."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            self._known = _Known(0)
            return 0
        whole_bytes = self._known.whole_bytes
        is_file = stat.S_ISREG(status.st_mode)
        if is_file and whole_bytes is not None and whole_bytes <= status.st_size:
            return whole_bytes
        try:
            self.read()
        except DamagedFileError as error:
            if set_aside(self.path) is None:
                raise OSError(errno.EEXIST, f"it {error}", str(self.path)) from error
            self._known = _Known(0)
        return self._known.whole_bytes or 0

    def rewrite(self, documents: Iterable[bytes]) -> None:
        """Replace all documents.

        Raises:
            OSError: The disk refused; the file is unchanged.
        """
        content = b"".join(map(_line, documents))
        self._known = _Known()
        replace_file(self.path, content)
        self._known = _Known(len(content), is_named=True)


class OpenLog:
    """An open file of changes: additions can be undone without another descriptor. Blocking.

    ``known`` is kept up to date.
    """

    def __init__(self, path: Path, descriptor: int, known: _Known) -> None:
        self._path = path
        self._descriptor = descriptor
        self._known = known
        self._before = known.whole_bytes or 0

    def append(self, content: bytes) -> None:
        """Append and sync content.

        Raises:
            OSError: The disk refused; the file may have a part of it.
        """
        left = memoryview(content)
        while left:
            left = left[os.write(self._descriptor, left) :]
        os.fdatasync(self._descriptor)
        if not self._known.is_named:
            sync_folder(self._path.parent)
            self._known.is_named = True
        self._known.whole_bytes = self._before + len(content)

    def take_back(self) -> None:
        """Truncate it to its former size; log it if the disk refuses."""
        self._known.whole_bytes = self._before
        try:
            if os.fstat(self._descriptor).st_size != self._before:
                os.ftruncate(self._descriptor, self._before)
                os.fsync(self._descriptor)
        except OSError as error:
            _log.error("table.changes_restore_failed", file=str(self._path), reason=str(error))


def add_to_each(logs: Sequence[ChangeLog], documents: Iterable[bytes]) -> None:
    """Add documents without line breaks to each file; they are on disk when this returns.

    All files stay open meanwhile, so undoing needs no free descriptor.

    Raises:
        OSError: The disk refused; each file is unchanged, or that is logged.
    """
    content = b"".join(map(_line, documents))
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(log.opened()) for log in logs]
        try:
            for one in opened:
                one.append(content)
        except OSError:
            for one in opened:
                one.take_back()
            raise


def size_bytes(path: Path) -> int:
    """Return the size of a file, or 0 if it is missing."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _line(document: bytes) -> bytes:
    return b"\n%b %b" % (_checksum(document), document)


def _document(line: bytes) -> bytes | None:
    """Return the document of a line, or None if it is damaged."""
    document = line[_CHECKSUM_DIGITS + 1 :]
    return document if line[: _CHECKSUM_DIGITS + 1] == _checksum(document) + b" " else None


def _checksum(document: bytes) -> bytes:
    return hashlib.sha256(document).hexdigest().encode()
