"""Interpreters that are not ours, as models bring them; and processes of our own."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson


def bare_python(folder: Path) -> Path:
    """Return an interpreter that has nothing installed."""
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def foreign_python(folder: Path) -> Path:
    """Return an interpreter that has what the worker needs, and nothing else."""
    python = bare_python(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "orjson").symlink_to(Path(orjson.__file__).parent)
    return python


def ended(
    command: Sequence[str | Path], *, timeout_s: float = 60.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its status; what it writes is text."""
    return subprocess.run(
        command, capture_output=True, check=False, text=True, timeout=timeout_s, **options
    )


def told_by(program: str) -> str:
    """Run a program with our interpreter; return what it writes."""
    command = [sys.executable, "-c", program]
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, capture_output=True, check=True, cwd=root, text=True, timeout=120
    ).stdout
