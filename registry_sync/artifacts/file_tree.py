"""Removing what may be read-only."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_FOLDER = 0o700


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, read-only or not; fine when it is not there.

    Raises:
        OSError: The disk refused, or something is being written there.
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
