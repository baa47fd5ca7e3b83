"""A disk that takes no more."""

import errno
import os

import pytest


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that is written come to disk, until the patch is undone."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
