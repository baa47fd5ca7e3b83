"""Interpreters that are not ours, as models bring them; and processes of our own."""

import subprocess
import sys
import venv
from pathlib import Path

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


def told_by(program: str) -> str:
    """Run a program with our interpreter; return what it writes."""
    command = [sys.executable, "-c", program]
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, capture_output=True, check=True, cwd=root, text=True, timeout=120
    ).stdout
