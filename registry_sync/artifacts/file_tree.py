"""Removal of files and folders that may be read-only."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_FOLDER = 0o700


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
