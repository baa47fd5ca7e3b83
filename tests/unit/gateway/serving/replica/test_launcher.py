"""What starting a worker needs where the disk takes nothing."""

import asyncio
import errno
import subprocess
import tempfile
from pathlib import Path

import pytest

from gateway.serving.replica import launcher
from gateway.serving.replica.launcher import Launchers
from tests.fakes.waiting import becomes


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


async def test_a_child_that_ends_later_is_reaped() -> None:
    child = await asyncio.to_thread(subprocess.Popen, ["sleep", "60"])
    launcher._reap(child)
    assert child.returncode is None
    child.kill()
    await becomes(lambda: child.returncode is not None, "it is reaped")
    launcher._reap(child)  # once more does no harm
