"""A disk that takes no more, or refuses one call, or one file."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that is written come to disk, until the patch is undone."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "fdatasync", refuse)


class Killed(BaseException):
    """The process ends here: no handler of ours may run on."""


@contextlib.contextmanager
def nth_call(
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    nth: int,
    error: BaseException | None = None,
    *,
    after: bool = False,
) -> Iterator[None]:
    """Let the ``nth`` call of an ``os`` function fail, instead of being done or once it is."""
    original, left = getattr(os, call), [nth]
    error = error or OSError(errno.EIO, "Input/output error")

    def fail(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == -1 and not after:
            raise error
        result = original(*args, **options)
        if left[0] == -1:
            raise error
        return result

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        yield


@contextlib.contextmanager
def unreadable(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[None]:
    """Let the system refuse to open these files to be read."""
    original = os.open

    def refuse(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if Path(path).name in names and not flags & os.O_WRONLY:
            raise OSError(errno.EMFILE, "Too many open files")
        return original(path, flags, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield
