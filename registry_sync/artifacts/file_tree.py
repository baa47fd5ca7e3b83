"""Folders of this node: made, and removed although they may be read-only."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from gateway.system.files import set_aside

_FOLDER = 0o700


def make_folder(folder: Path) -> None:
    """Make a folder; set aside anything else with its path."""
    if not folder.is_dir():
        if os.path.lexists(folder):
            set_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it exists.

    Raises:
        OSError: The disk refused, or the folder is being written to.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        path.chmod(_FOLDER)
        for root, folders, _ in os.walk(path):
            for name in folders:
                if not Path(root, name).is_symlink():
                    Path(root, name).chmod(_FOLDER)
        shutil.rmtree(path)
