"""Standing holds, pins and freeze in a file of the node: a lost ledger undoes none of them.

What an operator keeps exists nowhere else: the gateway knows what is active, the registry what is
wished, and without the hold the next pass would promote again what was rolled back.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from registry_sync.errors import LedgerError
from registry_sync.records import Freeze, Hold, Standing

_FORMAT_VERSION = 3


class HoldsFile:
    """A copy of what stands in the ledger by operators' will. Blocking."""

    def __init__(self, path: Path) -> None:
        """Store where it is."""
        self._path = path

    def read(self) -> Standing:
        """Return what stands; nothing if there is no file.

        Raises:
            LedgerError: It cannot be read, or a newer release wrote it.
        """
        try:
            body = json.loads(self._path.read_text())
            if body["format_version"] > _FORMAT_VERSION:
                raise LedgerError(f"{self._path} was written by a newer release: start that one")
            freeze = body.get("freeze")
            return Standing(
                holds=tuple(Hold(**one) for one in body["holds"]),
                freeze=Freeze(**freeze) if freeze else None,
            )
        except FileNotFoundError:
            return Standing()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{self._path} cannot be read ({type(error).__name__}): remove it, and roll back, "
                "pin and freeze again what was"
            ) from error

    def write(self, standing: Standing) -> None:
        """Replace the file; it is on disk when this returns.

        Raises:
            LedgerError: The disk refused.
        """
        body = {"format_version": _FORMAT_VERSION, **asdict(standing)}
        part = self._path.with_suffix(".part")
        try:
            with part.open("w") as file:
                json.dump(body, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
