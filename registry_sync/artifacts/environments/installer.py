"""Running the installer of own environments: uv, bounded in time, disk and output.

It works on what strangers wrote, so it gets nothing that it does not need: of the process's
environment what `inherited` names, and no secrets but those of the operator's package indexes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.system.logs import redacted
from registry_sync.artifacts.environments import lifeline
from registry_sync.errors import EnvironmentFailedError

_LOOK_EVERY_S = 0.5
_END_PATIENCE_S = 5.0
_COMPILE_TIMEOUT_S = 300.0
_NICENESS = 10
"""Compiling must not take the processor from the workers."""
_TAIL_BYTES = 8192
_TAIL_LINES = 6
_TAIL_CHARACTERS = 800
_CANNOT_BE_MET = 1
"""uv's exit status when the requirements have no solution; everything else may pass."""
_INDEX_REFUSED = "could not be queried"

INHERITED = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH",
        "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "NETRC",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
        "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    }
)  # fmt: skip
"""Variables that the installer gets of ours."""

INHERITED_PREFIXES = ("UV_", "LC_")
"""What the names of others that it gets begin with."""

_NOT_INHERITED = ("UV_PUBLISH_", "UV_COMPILE_BYTECODE")
"""Of these: secrets that no build needs, and what would have uv start what it has installed."""
_FOR_THE_COMPILER = frozenset({"PATH", "LD_LIBRARY_PATH", "TMPDIR"})

Check = Callable[[], None]
"""Raises when the build is to be given up: the control plane ends."""


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """What a build may take: seconds in all, and bytes that it leaves free on the disk."""

    timeout_s: float
    disk_floor_bytes: int


class _TimeOverError(EnvironmentFailedError):
    """A step took longer than it may."""


class Installer:
    """uv, as one node calls it. Any thread."""

    def __init__(
        self, path: str, *, limits: BuildLimits, environ: Mapping[str, str], pythons: Path
    ) -> None:
        """Store.

        Args:
            path: Of uv.
            limits: What one build may take.
            environ: The process's environment; see `inherited`.
            pythons: Where uv keeps interpreters that it fetches.
        """
        self.path = path
        self.limits = limits
        self._environ = inherited(environ)
        self._pythons = pythons

    def job(self, folder: Path, check: Check) -> Job:
        """Return what runs the steps of one build in ``folder``; its time runs from here."""
        environ = {
            "UV_CACHE_DIR": str(folder / "cache"),  # goes with the build: nothing grows for ever
            "UV_PYTHON_INSTALL_DIR": str(self._pythons),
            **self._environ,
            "NO_COLOR": "1",
        }
        return Job(self, folder, environ, check)


class Job:
    """The steps of one build, which share its limits. One thread."""

    def __init__(
        self, installer: Installer, folder: Path, environ: Mapping[str, str], check: Check
    ) -> None:
        """Store; the time runs from here."""
        self._installer = installer
        self._limits = installer.limits
        self._folder = folder
        self._environ = environ
        self._check = check
        self._give_up_at = time.monotonic() + self._limits.timeout_s

    def install(self, arguments: Sequence[str]) -> None:
        """Call uv.

        Raises:
            EnvironmentFailedError: It failed, or went over a limit.
        """
        command = [self._installer.path, "--no-progress", *arguments]
        status, tail = self._run(command, self._environ, self._give_up_at)
        if status:
            raise _failed(status, tail)

    def compile(self, python: Path, folder: Path) -> None:
        """Compile the modules below ``folder``, and run none of them: isolated and without site.

        What cannot be compiled, or not in time, is compiled by whoever imports it.

        Args:
            python: An interpreter that no model brought, of the version that will import them.
            folder: Where they are.

        Raises:
            EnvironmentFailedError: The disk is full.
        """
        command = [str(python), "-I", "-S", "-m", "compileall", "-qq", "-j", "0", str(folder)]
        environ = {k: v for k, v in self._environ.items() if k in _FOR_THE_COMPILER}
        give_up_at = min(self._give_up_at, time.monotonic() + _COMPILE_TIMEOUT_S)
        with contextlib.suppress(_TimeOverError):
            self._run(command, environ, give_up_at)

    def _run(
        self, command: Sequence[str], environ: Mapping[str, str], give_up_at: float
    ) -> tuple[int, str]:
        """Run a command to its end; return its exit status and the end of what it said.

        It ends with this process, and with all that it started: see `registry_sync.lifeline`.
        """
        alive, held = os.pipe()
        try:
            process = self._start(command, environ, alive)
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(alive)
        try:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
            tail = self._follow(process, give_up_at)
            return process.wait(_END_PATIENCE_S), tail
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailedError("uv does not end", transient=True) from error
        finally:
            _end(process)
            os.close(held)

    def _start(
        self, command: Sequence[str], environ: Mapping[str, str], alive: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            [sys.executable, "-I", "-S", lifeline.__file__, str(alive), *command],
            cwd=self._folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(alive,),
            start_new_session=True,
        )

    def _follow(self, process: subprocess.Popen[bytes], give_up_at: float) -> str:
        """Read what a process says until it is silent for ever; return the end of it."""
        if process.stdout is None:
            raise AssertionError("started with a pipe")
        output, tail = process.stdout.fileno(), b""
        while True:
            if select.select([output], [], [], _LOOK_EVERY_S)[0]:
                data = os.read(output, _TAIL_BYTES)
                if not data:
                    return _shown(tail)
                tail = (tail + data)[-_TAIL_BYTES:]
            self._check()
            self._check_limits(give_up_at)

    def _check_limits(self, give_up_at: float) -> None:
        if time.monotonic() > give_up_at:
            raise _TimeOverError(
                f"its environment was not built within {self._limits.timeout_s:g} s",
                transient=True,
            )
        if shutil.disk_usage(self._folder).free < self._limits.disk_floor_bytes:
            raise EnvironmentFailedError(
                "building its environment would leave less free disk space than the floor",
                transient=True,
            )


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the installer gets of an environment: what finds packages, and nothing else."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED
        or (name.startswith(INHERITED_PREFIXES) and not name.startswith(_NOT_INHERITED))
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; harmless if they have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def _shown(tail: bytes) -> str:
    """Return the end of what was said, without passwords, nor the rest of one that was cut."""
    if len(tail) == _TAIL_BYTES:
        tail = b"".join(tail.split(maxsplit=1)[1:])
    return redacted(tail.decode(errors="replace"))


def _failed(status: int, tail: str) -> EnvironmentFailedError:
    """Turn the installer's last lines into an error."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    said = " ".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
    transient = status != _CANNOT_BE_MET or _INDEX_REFUSED in tail
    return EnvironmentFailedError(
        f"its environment could not be built: {said or f'uv ended with status {status}'}",
        transient=transient,
    )
