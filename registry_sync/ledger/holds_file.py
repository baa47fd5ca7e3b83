"""Standing holds, pins and freeze in a file of the node: a lost ledger undoes none of them.

What an operator keeps exists nowhere else: the gateway knows what is active, the registry what is
wished, and without the hold the next pass would promote again what was rolled back. What a ledger
that does not answer could not take waits here too.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.system.files import (
    AlteredError,
    DamagedFileError,
    NewerFormatError,
    read_file,
    replace_file,
    seal,
    unseal_known,
)
from registry_sync.domain import Activation, Standing, StandingChange
from registry_sync.errors import LedgerError
from registry_sync.system import DamagedFiles

_FORMAT_VERSION = 4
_MOST_BYTES = 64 * 1024 * 1024
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_STANDING = TypeAdapter(Standing)
_INSTEAD = "what it is to hold counts all the same, and it is written when there is room"


class DamagedHoldsError(LedgerError):
    """The file is there and does not say what stands."""

    def __init__(self, path: Path, damage: str) -> None:
        """Store what is wrong, as the end of a sentence that begins with "it"."""
        super().__init__(f"{path} cannot be used: it {damage}")
        self.damage = damage


class HoldsFile:
    """A copy of what stands in the ledger, and what that has not taken. Blocking; any thread."""

    def __init__(self, path: Path, damaged: DamagedFiles | None = None) -> None:
        """Store where it is, and who is told of damage."""
        self._path = path
        self._damaged = damaged or DamagedFiles()
        self._writing = threading.RLock()

    @property
    def name(self) -> str:
        """The file's name, for people."""
        return self._path.name

    def exists(self) -> bool:
        """Return whether there is a file, or something else in its place."""
        return self._path.exists() or self._path.is_symlink()

    def read(self) -> Standing:
        """Return what stands; nothing if there is no file.

        Raises:
            DamagedHoldsError: It is not as it was written, or cannot be read.
            LedgerError: A newer release wrote it, or the system lacks what it takes to look.
        """
        try:
            members = unseal_known(read_file(self._path, _MOST_BYTES), _FORMAT_VERSION)
        except FileNotFoundError:
            return Standing()
        except NewerFormatError as error:
            reason = f"{self._path} was written by a newer release: start that one"
            raise LedgerError(reason) from error
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise LedgerError(f"{self._path} cannot be read now: {error.strerror}") from error
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

    def copy(self, standing: Standing) -> None:
        """Replace what stands in the ledger; what the ledger has not taken yet stays.

        Raises:
            LedgerError: The disk refused, or the file cannot be read now: what the ledger has not
                taken may stand in it. A damaged file is replaced.
        """
        with self._writing:
            try:
                kept = self.read()
            except DamagedHoldsError:
                kept = Standing()
            self.write(replace(standing, changes=kept.changes, activations=kept.activations))

    def keep(self, changes: Sequence[StandingChange], activations: Sequence[Activation]) -> None:
        """Replace what the ledger has not taken yet; what stands in it stays.

        Raises:
            LedgerError: The disk refused, or the file cannot be read.
        """
        with self._writing:
            standing = self.read()
            self.write(replace(standing, changes=tuple(changes), activations=tuple(activations)))

    def write(self, standing: Standing) -> None:
        """Replace the file; it is on disk when this returns.

        Raises:
            LedgerError: The disk refused.
        """
        members = _STANDING.dump_json(standing, indent=1).removeprefix(b"{\n")
        content = seal(b'{\n "format_version": %d,\n%b' % (_FORMAT_VERSION, members))
        with self._writing:
            try:
                replace_file(self._path, content)
            except OSError as error:
                self._damaged.not_written(self._path, error, instead=_INSTEAD)
                raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
            self._damaged.written(self._path)
