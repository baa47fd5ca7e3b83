"""Standing holds, pins and freeze in a file of the node: a lost ledger undoes none of them.

What an operator keeps exists nowhere else: the gateway knows what is active, the registry what is
wished, and without the hold the next pass would promote again what was rolled back.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from registry_sync.atomic_files import replace
from registry_sync.damaged_files import DamagedFiles
from registry_sync.errors import LedgerError
from registry_sync.guarded_read import DamagedFileError, read
from registry_sync.records import Standing
from registry_sync.sealed import AlteredError, NewerFormatError, seal, unseal_known

_FORMAT_VERSION = 3
_MOST_BYTES = 64 * 1024 * 1024
_STANDING = TypeAdapter(Standing)


class DamagedHoldsError(LedgerError):
    """The file is there and does not say what stands."""

    def __init__(self, path: Path, damage: str) -> None:
        """Store what is wrong, as the end of a sentence that begins with "it"."""
        super().__init__(f"{path} cannot be used: it {damage}")
        self.damage = damage


class HoldsFile:
    """A copy of what stands in the ledger by operators' will. Blocking."""

    def __init__(self, path: Path, damaged: DamagedFiles | None = None) -> None:
        """Store where it is, and who is told of damage."""
        self._path = path
        self._damaged = damaged or DamagedFiles()

    def exists(self) -> bool:
        """Return whether there is a file, or something else in its place."""
        return self._path.exists() or self._path.is_symlink()

    def read(self) -> Standing:
        """Return what stands; nothing if there is no file.

        Raises:
            DamagedHoldsError: It is not as it was written, or cannot be read.
            LedgerError: A newer release wrote it.
        """
        try:
            members = unseal_known(read(self._path, _MOST_BYTES), _FORMAT_VERSION)
        except FileNotFoundError:
            return Standing()
        except NewerFormatError as error:
            reason = f"{self._path} was written by a newer release: start that one"
            raise LedgerError(reason) from error
        except OSError as error:
            raise DamagedHoldsError(self._path, f"cannot be read: {error.strerror}") from error
        except (DamagedFileError, AlteredError) as error:
            raise DamagedHoldsError(self._path, str(error)) from error
        try:
            if "holds" not in members or not isinstance(members.get("format_version"), int):
                raise DamagedHoldsError(self._path, "holds no holds")
            return _STANDING.validate_python(members)
        except ValidationError as error:
            wrong = f"holds no holds ({error.error_count()} errors)"
            raise DamagedHoldsError(self._path, wrong) from error

    def set_aside(self, error: DamagedHoldsError, *, instead: str) -> None:
        """Make room for the next `write`, and tell of the damage and what counts ``instead``."""
        self._damaged.found(self._path, error.damage, instead=instead)

    def write(self, standing: Standing) -> None:
        """Replace the file; it is on disk when this returns.

        Raises:
            LedgerError: The disk refused.
        """
        body = {"format_version": _FORMAT_VERSION, **asdict(standing)}
        try:
            replace(self._path, seal(json.dumps(body, ensure_ascii=False, indent=1).encode()))
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
