"""What a model is, read from its files: the description that gateway and worker go by.

Nothing is imported, unpickled or run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry_sync.fetch import Fetched

DESCRIPTION_FORMAT_VERSION = 1


def describe(fetched: Fetched) -> dict[str, Any]:
    """Return the description of a fetched artifact.

    Raises:
        BrokenModelError: ``MLmodel`` cannot be read, or the model cannot be served by any flavor.
        IncompleteArtifactError: ``MLmodel``, or a file that it names, is missing.
    """
    raise NotImplementedError


def check_complete(folder: Path) -> None:
    """Refuse a folder without ``MLmodel`` or without a file that ``MLmodel`` names.

    Raises:
        BrokenModelError: ``MLmodel`` cannot be read.
        IncompleteArtifactError: Something is missing; the sentence says what.
    """
    raise NotImplementedError
