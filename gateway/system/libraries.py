"""A mark of the installed libraries, which changes when one of them does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_RECORDS = (".dist-info", ".egg-info")
_MARK_CHARACTERS = 16


def mark_of_libraries(python: str, search_path: Iterable[str]) -> str:
    """Return the mark of an interpreter and its libraries. Blocking.

    It is made from the names of the metadata folders, which have name and version.

    Args:
        python: The interpreter's version.
        search_path: The folders of modules; unreadable ones are ignored.
    """
    installed = {name for folder in search_path for name in _installed(Path(folder))}
    text = "\n".join([python, *sorted(installed)])
    return hashlib.sha256(text.encode()).hexdigest()[:_MARK_CHARACTERS]


def _installed(folder: Path) -> list[str]:
    try:
        return [one.name for one in folder.iterdir() if one.name.endswith(_RECORDS)]
    except OSError:
        return []
