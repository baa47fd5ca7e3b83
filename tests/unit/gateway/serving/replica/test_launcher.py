"""What starting a worker needs where the disk takes nothing."""

import errno
import tempfile
from pathlib import Path

import pytest

from gateway.serving.replica import launcher


def test_a_forkserver_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_usable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(launcher, "_MEMORY", tmp_path)
    launcher._have_place_for_sockets()
    assert tempfile.tempdir == str(tmp_path)
    monkeypatch.setattr(launcher, "_MEMORY", tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        launcher._have_place_for_sockets()
