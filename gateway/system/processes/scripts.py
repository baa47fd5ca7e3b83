"""Command lines of scripts of ours, for any interpreter, also from inside a zip archive."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.system.processes import lifeline

_FROM_ARCHIVE = (
    "import sys, zipimport; path = sys.argv.pop(1); folder, _, name = path.rpartition('/'); "
    "code = zipimport.zipimporter(folder).get_code(name.removesuffix('.py')); "
    "exec(code, {'__name__': '__main__', '__file__': path})"
)
"""Runs a script of an archive, which Python cannot open by its path."""


def script_command(script: str) -> list[str]:
    """Return the arguments with which an interpreter runs a script of ours, given its path."""
    return [script] if Path(script).is_file() else ["-c", _FROM_ARCHIVE, script]


def bound_command(pipe: int, command: Sequence[str]) -> list[str]:
    """Return a command that becomes ``command`` and ends with this process; see `lifeline`.

    Args:
        pipe: The read end of a pipe, which the child must inherit. Only this process may hold the
            write end.
        command: The program and its arguments.
    """
    return [sys.executable, "-I", "-S", *script_command(lifeline.__file__), str(pipe), *command]


def importable(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables with which a child finds our modules where this process found them.

    A child that is started with ``-P -m`` looks in ``site-packages`` and in ``PYTHONPATH`` only,
    not in the present folder, and not inside a zip archive that its parent runs from.
    """
    root = Path(__file__).parents[3]
    if str(root) in {sysconfig.get_path("purelib"), site.getusersitepackages()}:
        return dict(environ)
    paths = [str(root), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths)}
