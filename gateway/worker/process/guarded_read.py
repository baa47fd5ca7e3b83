"""Read files that may be damaged or replaced: plain files only, within a size limit.

Standard library only, since workers use it too.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_BLOCK_BYTES = 1024 * 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_PLAIN_FILE = frozenset({errno.ELOOP, errno.ENXIO})
"""The system's errors for a link and for a socket."""


class DamagedFileError(Exception):
    """A path holds no such file. The message continues "it": ``is a folder``."""


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the content of a plain file.

    The call follows no link, waits for no pipe and reads at most one byte beyond the limit.

    Raises:
        FileNotFoundError: The file is missing.
        DamagedFileError: It is a link, not a plain file, or larger than ``most_bytes``.
        OSError: The system refused the read, which proves nothing about the content.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _NO_PLAIN_FILE:
            raise DamagedFileError("is a link or another special file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
            raise DamagedFileError(f"is {what}")
        return _read_all(descriptor, status.st_size, most_bytes)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size_bytes: int, most_bytes: int) -> bytes:
    content = bytearray()
    if size_bytes <= most_bytes:
        left = most_bytes + 1
        while left and (block := os.read(descriptor, min(_BLOCK_BYTES, left))):
            content += block
            left -= len(block)
        if left:
            return bytes(content)
    raise DamagedFileError(f"has more than {most_bytes} bytes")
