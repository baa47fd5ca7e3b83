"""Ways in which an artifact's bytes can go wrong: each a change to a folder that was right.

Data for every implementation that must notice them: the control plane when it fetches, the worker
when it loads. Each change has a name, and whether it makes the artifact another one (``harmful``)
or leaves it what it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILES = {
    "MLmodel": b"flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n",
    "model.bin": bytes(range(256)) * 64,
    "data/weights/part-0": b"w" * 4096,
    "data/weights/part-1": b"v" * 4096,
    "requirements.txt": b"scikit-learn==1.9.1\n",
    "empty": b"",
    "name with spaces \u00fc": b"x",
}
"""The artifact that every change starts from."""


def write_artifact(folder: Path) -> Path:
    """Write `FILES` into a new folder and return it."""
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@dataclass(frozen=True)
class Change:
    """One change to the folder that `write_artifact` wrote."""

    name: str
    apply: Callable[[Path], object]
    harmful: bool = True


def _flip(folder: Path) -> None:
    content = bytearray((folder / "model.bin").read_bytes())
    content[5000] ^= 1
    (folder / "model.bin").write_bytes(content)


def _swap(folder: Path) -> None:
    first, second = folder / "data/weights/part-0", folder / "data/weights/part-1"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def _replace_by_link(folder: Path) -> None:
    """Same bytes, reached through a link: where it points may change later."""
    kept = folder.parent / "elsewhere.bin"
    kept.write_bytes(FILES["model.bin"])
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(kept)


def _replace_folder_by_link(folder: Path) -> None:
    kept = folder.parent / "elsewhere"
    (folder / "data").rename(kept)
    (folder / "data").symlink_to(kept)


CHANGES = [
    Change("a changed bit", _flip),
    Change("an appended byte", lambda f: (f / "model.bin").write_bytes(FILES["model.bin"] + b"\0")),
    Change("a truncated file", lambda f: os.truncate(f / "model.bin", 100)),
    Change("an emptied file", lambda f: os.truncate(f / "model.bin", 0)),
    Change("an added file", lambda f: (f / "sitecustomize.py").write_text("print('hello')\n")),
    Change("an added empty file", lambda f: (f / "data" / "__init__.py").touch()),
    Change("an added file in a new folder", lambda f: write_artifact(f / "again")),
    Change("a removed file", lambda f: (f / "requirements.txt").unlink()),
    Change("a removed empty file", lambda f: (f / "empty").unlink()),
    Change("a renamed file", lambda f: (f / "model.bin").rename(f / "model2.bin")),
    Change("a renamed folder", lambda f: (f / "data").rename(f / "date")),
    Change("a changed case", lambda f: (f / "model.bin").rename(f / "MODEL.bin")),
    Change("two swapped files", _swap),
    Change("a link to the same bytes", _replace_by_link),
    Change("a folder behind a link", _replace_folder_by_link),
    Change("an added link", lambda f: (f / "link").symlink_to("model.bin")),
    Change("an added broken link", lambda f: (f / "link").symlink_to("/nowhere")),
    Change("an added pipe", lambda f: os.mkfifo(f / "pipe")),
    Change("nothing", lambda f: None, harmful=False),
    Change("new times", lambda f: os.utime(f / "model.bin", (1, 1)), harmful=False),
    Change("other permissions", lambda f: (f / "model.bin").chmod(0o600), harmful=False),
]
