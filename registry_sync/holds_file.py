"""Standing holds in a file of the node, so that a lost ledger does not undo a rollback.

An operator's hold exists nowhere else: the gateway knows what is active, the registry what is
wished, and without the hold the next pass would promote again what was rolled back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from registry_sync.errors import LedgerError
from registry_sync.records import Hold

_FORMAT_VERSION = 1


class HoldsFile:
    """A copy of the ledger's standing holds. Blocking."""

    def __init__(self, path: Path) -> None:
        """Store where it is."""
        self._path = path

    def read(self) -> list[Hold]:
        """Return the holds; none if there is no file.

        Raises:
            LedgerError: It cannot be read, or a newer release wrote it.
        """
        try:
            body = json.loads(self._path.read_text())
            if body["format_version"] > _FORMAT_VERSION:
                raise LedgerError(f"{self._path} was written by a newer release: start that one")
            return [Hold(**one) for one in body["holds"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{self._path} cannot be read ({type(error).__name__}): remove it, and roll back "
                "again what was rolled back"
            ) from error

    def write(self, holds: Iterable[Hold]) -> None:
        """Replace the file; it is on disk when this returns.

        Raises:
            LedgerError: The disk refused.
        """
        body = {"format_version": _FORMAT_VERSION, "holds": [asdict(hold) for hold in holds]}
        part = self._path.with_suffix(".part")
        try:
            with part.open("w") as file:
                json.dump(body, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
