"""Run uv, the installer of own environments, with limits on time, disk and output.

uv reads files that are not trusted. Therefore it gets only the variables that `inherited` returns,
and no secrets but those of the operator's package indexes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.system.logs import redacted
from gateway.system.processes import bound_command
from registry_sync.artifacts.environments.recipe import WORKER_NEEDS
from registry_sync.errors import EnvironmentFailedError

_LOOK_EVERY_S = 0.5
_END_TIMEOUT_S = 5.0
_COMPILE_TIMEOUT_S = 300.0
_NICENESS = 10
"""Compiling must not slow the workers."""
_TAIL_BYTES = 8192
_TAIL_LINES = 6
_TAIL_CHARACTERS = 800
_CANNOT_BE_MET = 1
"""uv's exit status if the requirements have no solution; another status is transient."""
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
"""The variables of this process that uv gets."""

INHERITED_PREFIXES = ("UV_", "LC_")
"""uv gets variables with these prefixes too."""

_NOT_INHERITED = ("UV_PUBLISH_", "UV_COMPILE_BYTECODE")
"""Exceptions: secrets that no build needs, and a setting that runs installed code."""
_FOR_THE_COMPILER = frozenset({"PATH", "LD_LIBRARY_PATH", "TMPDIR"})

Check = Callable[[], None]
"""Raises to end the build, because the control plane ends."""


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """Limits of one build: seconds in all, and bytes that stay free on the disk."""

    timeout_s: float
    disk_floor_bytes: int


class _TimeOverError(EnvironmentFailedError):
    """A step exceeded its time limit."""


class Job:
    """One build by uv in ``folder``, within limits that begin now. One thread."""

    def __init__(
        self,
        uv: str,
        folder: Path,
        *,
        limits: BuildLimits,
        environ: Mapping[str, str],
        check: Check,
    ) -> None:
        self._uv = uv
        self._limits = limits
        self._folder = folder
        self._environ = {"UV_CACHE_DIR": str(folder / "cache"), **environ}  # goes with the build
        self._check = check
        self._give_up_at = time.monotonic() + limits.timeout_s

    def install(self, arguments: Sequence[str]) -> None:
        """Run uv.

        Raises:
            EnvironmentFailedError: uv failed, or exceeded a limit.
        """
        command = [self._uv, "--no-progress", *arguments]
        status, tail = self._run(command, self._environ, self._give_up_at)
        if status:
            raise _failed(status, tail)

    def compile(self, python: Path, folder: Path) -> None:
        """Compile the modules below ``folder`` without running them: isolated, without site.

        A worker compiles a module itself if it cannot be compiled here, or not in time.
        ``python`` is an interpreter of the right version that no model brought.

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
        """Run a command; return its exit status and the end of its output.

        The command and its children end at the latest with this process: see `lifeline`.
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
            return process.wait(_END_TIMEOUT_S), tail
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailedError("uv did not end", transient=True) from error
        finally:
            _end(process)
            os.close(held)

    def _start(
        self, command: Sequence[str], environ: Mapping[str, str], alive: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            bound_command(alive, command),
            cwd=self._folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(alive,),
            start_new_session=True,
        )

    def _follow(self, process: subprocess.Popen[bytes], give_up_at: float) -> str:
        """Read a process's output until it is closed; return its end."""
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
    """Return the variables that uv gets: those that it needs to find packages."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED
        or (name.startswith(INHERITED_PREFIXES) and not name.startswith(_NOT_INHERITED))
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children. Idempotent."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def _shown(tail: bytes) -> str:
    """Return the end of the output without passwords; a word that was cut is dropped."""
    if len(tail) == _TAIL_BYTES:
        tail = b"".join(tail.split(maxsplit=1)[1:])
    return redacted(tail.decode(errors="replace"))


def _failed(status: int, tail: str) -> EnvironmentFailedError:
    """Return uv's last lines as an error."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    reason = " ".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:] or f"uv ended with status {status}"
    if needs := [one for one in WORKER_NEEDS if one in reason]:
        reason += f" (the worker needs {', '.join(needs)} in each environment)"
    return EnvironmentFailedError(
        f"its environment could not be built: {reason}",
        transient=status != _CANNOT_BE_MET or _INDEX_REFUSED in tail,
    )
