"""A file of the node with holds, pins and freeze, so that they survive a lost ledger.

Neither gateway nor registry knows them; without its hold, a version that was rolled back would be
promoted again. Decisions and moves that the ledger has not recorded are kept here too.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from registry_sync.domain import Activation, HoldChange, HoldsSnapshot
from registry_sync.errors import LedgerError
from registry_sync.system import DamagedFiles

_FORMAT_VERSION = 5
_MOST_BYTES = 64 * 1024 * 1024
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_SNAPSHOT = TypeAdapter(HoldsSnapshot)
_FORMER_WORDS = (("asked_by", "rule", "gateway"), ("what", "release", "end_hold"))
"""Fields, and their values before the first release and now."""
_INSTEAD = "its new content is in force all the same, and is written when there is room"


class DamagedHoldsError(LedgerError):
    """The holds file is damaged; ``damage`` completes a sentence that begins with "it"."""

    def __init__(self, path: Path, damage: str) -> None:
        super().__init__(f"{path} cannot be used: it {damage}")
        self.damage = damage


class HoldsFile:
    """Holds and freeze in force, and what the ledger has not recorded. Blocking; any thread.

    Every method raises `LedgerError` if the disk refuses, or the file cannot be read now.
    """

    def __init__(self, path: Path, damaged: DamagedFiles | None = None) -> None:
        self._path = path
        self._damaged = damaged or DamagedFiles()
        self._writing = threading.RLock()

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self._path.name

    def exists(self) -> bool:
        """Return whether anything has the file's path."""
        return self._path.exists() or self._path.is_symlink()

    def read(self) -> HoldsSnapshot:
        """Return the file's content, or an empty snapshot if there is no file.

        Raises:
            DamagedHoldsError: The file was altered, or cannot be read.
            LedgerError: A newer release wrote it, or the system lacks descriptors or memory.
        """
        try:
            members = unseal_known(read_file(self._path, _MOST_BYTES), _FORMAT_VERSION)
        except FileNotFoundError:
            return HoldsSnapshot()
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
                raise DamagedHoldsError(self._path, "has no list of holds")
            return _SNAPSHOT.validate_python(_in_present_words(members))
        except ValidationError as error:
            wrong = f"has no valid holds ({error.error_count()} errors)"
            raise DamagedHoldsError(self._path, wrong) from error

    def set_aside(self, error: DamagedHoldsError, *, instead: str) -> None:
        """Set the damaged file aside and report it; ``instead`` says what is in force."""
        self._damaged.found(self._path, error.damage, instead=instead)

    def copy(self, snapshot: HoldsSnapshot) -> None:
        """Replace holds and freeze, and keep unrecorded decisions and moves.

        A damaged file is replaced.
        """
        with self._writing:
            try:
                kept = self.read()
            except DamagedHoldsError:
                kept = HoldsSnapshot()
            self.write(replace(snapshot, changes=kept.changes, activations=kept.activations))

    def keep(self, changes: Sequence[HoldChange], activations: Sequence[Activation]) -> None:
        """Replace the unrecorded decisions and moves, and keep holds and freeze."""
        with self._writing:
            snapshot = self.read()
            self.write(replace(snapshot, changes=tuple(changes), activations=tuple(activations)))

    def write(self, snapshot: HoldsSnapshot) -> None:
        """Replace the file, and fsync it."""
        members = _SNAPSHOT.dump_json(snapshot, indent=1).removeprefix(b"{\n")
        content = seal(b'{\n "format_version": %d,\n%b' % (_FORMAT_VERSION, members))
        with self._writing:
            try:
                replace_file(self._path, content)
            except OSError as error:
                self._damaged.not_written(self._path, error, instead=_INSTEAD)
                raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
            self._damaged.written(self._path)


def _in_present_words(content: Any) -> Any:
    """Return the file's content with the words of the first release, which format 5 has."""
    if isinstance(content, list):
        return [_in_present_words(one) for one in content]
    if not isinstance(content, dict):
        return content
    read = {name: _in_present_words(value) for name, value in content.items()}
    for name, former, present in _FORMER_WORDS:
        if read.get(name) == former:
            read[name] = present
    return read
