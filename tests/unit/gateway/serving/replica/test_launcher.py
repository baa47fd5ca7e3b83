"""What starting a worker needs where the disk takes nothing."""

import errno
import tempfile
from pathlib import Path

import pytest

from gateway.serving.replica import launcher
from gateway.serving.replica.launcher import Launchers


def test_a_forkserver_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_usable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(launcher, "_MEMORY", tmp_path)
    launcher._find_socket_folder()
    assert tempfile.tempdir == str(tmp_path)
    monkeypatch.setattr(launcher, "_MEMORY", tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        launcher._find_socket_folder()


class Recorder:
    """A launcher that records its interpreters."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, ...]] = []

    async def launch(self, *interpreter: str) -> None:
        self.launched.append(interpreter)


async def test_each_interpreter_has_its_launcher() -> None:
    shared, own = Recorder(), Recorder()
    launchers = Launchers(shared, own)  # type: ignore[arg-type]  # stand-ins
    await launchers.launch(None)
    await launchers.launch("/bin/python")
    assert (shared.launched, own.launched) == ([()], [("/bin/python",)])
