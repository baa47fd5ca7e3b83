"""Which libraries are installed beside this process: one mark, equal as long as none changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_RECORDS = (".dist-info", ".egg-info")
_MARK_CHARACTERS = 16


def mark_of_libraries(python: str, search_path: Iterable[str]) -> str:
    """Return the mark of an interpreter and of what is installed for it. Blocking.

    Installers leave one folder for each distribution, with its name and version in the folder's
    name; what those folders hold is not read.

    Args:
        python: The interpreter's version.
        search_path: Where it looks for modules; what cannot be read has no libraries.
    """
    installed = {name for folder in search_path for name in _installed(Path(folder))}
    text = "\n".join([python, *sorted(installed)])
    return hashlib.sha256(text.encode()).hexdigest()[:_MARK_CHARACTERS]


def _installed(folder: Path) -> list[str]:
    try:
        return [one.name for one in folder.iterdir() if one.name.endswith(_RECORDS)]
    except OSError:
        return []
