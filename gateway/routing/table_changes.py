"""The changes of the route table since it was written as a whole, each kept in two files.

``table.changes`` and ``table.changes.copy`` have the same lines, so no single damaged file loses an
acknowledged change. If a crash or damage has left them different, both are written anew with the
changes of either: at once or, if the disk refuses that, before the next change.

Changes are numbered consecutively, and the whole table names its last one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from gateway.contract import ActiveAlias, AliasBody, RefusedDigest
from gateway.system.files import ChangeLog, DamagedFiles, add_to_each
from gateway.worker.process.guarded_read import DamagedFileError

_MOST_BYTES = 64 * 1024 * 1024
_ONE_LEFT = "the other copy counts: nothing is lost"
_BOTH_DAMAGED = "the changes of either copy count"
_log = structlog.get_logger("gateway.routing.table_changes")


class TableChange(BaseModel):
    """One change of a route table, or several that were made together.

    Attributes:
        number: Consecutive.
        generation: The generation of the table after the change.
        active: The aliases that moved, as they are now.
        inactive: The aliases that were removed.
        refused_digests: All of them after the change, or None if they did not change; ``holds``
            before the first release.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    number: int
    generation: int
    active: list[ActiveAlias] = []
    inactive: list[AliasBody] = []
    refused_digests: list[RefusedDigest] | None = Field(
        default=None, validation_alias=AliasChoices("refused_digests", "holds")
    )


@dataclass(frozen=True, slots=True)
class _Copy:
    """The content of one of the two files.

    Attributes:
        changes: By number.
        damage: What is wrong with it, as the end of a sentence that begins with "it".
        unread: The error of a failed read, or None. A copy that was not read may be whole.
    """

    log: ChangeLog
    changes: dict[int, TableChange]
    damage: str | None = None
    unread: OSError | None = None

    @property
    def is_sound(self) -> bool:
        return self.damage is None and self.unread is None

    def replaces_other(self) -> bool:
        """Whether it has everything that the other copy, which cannot be read, may have."""
        return self.is_sound and os.path.lexists(self.log.path)


class TableChanges:
    """Reads and writes both copies. Blocking: call from a thread, one call at a time.

    ``damaged`` receives damage.
    """

    def __init__(self, node_dir: Path, damaged: DamagedFiles) -> None:
        self._logs = (
            ChangeLog(node_dir / "table.changes", _MOST_BYTES),
            ChangeLog(node_dir / "table.changes.copy", _MOST_BYTES),
        )
        self._damaged = damaged
        self._sizes_when_alike: list[int] | None = None
        self.path = self._logs[0].path

    def sizes(self) -> list[int]:
        """Return the size of each copy in bytes."""
        return [one.size_bytes() for one in self._logs]

    # --- read -------------------------------------------------------------------------------------

    def load(self, number: int) -> list[TableChange]:
        """Return the changes of either copy above a number, in order.

        Copies that differ are made alike, if the disk takes it.

        Raises:
            OSError: One copy cannot be read, and the other is not whole.
        """
        copies = self._read()
        changes = _merged(copies)
        if all(one.unread is None for one in copies):  # else the next change tries again
            try:
                self._make_alike(copies, changes)
            except OSError as error:
                _log.warning("table.changes_differed", reason=str(error))
        after = [one for one in changes if one.number > number]
        lost = after[-1].number - number - len(after) if after else 0
        if lost:
            _log.error("table.changes_lost", changes=lost)
        return after

    def go_on_from(self, number: int) -> bool:
        """Whether the changes above a number begin with the next one.

        Raises:
            OSError: As of `load`.
        """
        changes = self.load(number)
        return bool(changes) and changes[0].number == number + 1

    def _read(self) -> list[_Copy]:
        """Read both copies; set a damaged one aside if the other has all of its changes.

        Raises:
            OSError: As of `load`.
        """
        copies = [_read(one) for one in self._logs]
        for one, other in zip(copies, reversed(copies), strict=True):
            path, has_all = one.log.path, one.changes.keys() <= other.changes.keys()
            instead = _ONE_LEFT if other.replaces_other() else _BOTH_DAMAGED
            if one.damage is not None:
                self._damaged.found(path, one.damage, instead=instead, keep=has_all)
            elif one.unread is not None:
                reason = f"cannot be read: {one.unread.strerror}"
                self._damaged.found(path, reason, instead=instead, keep=False)
                if not other.replaces_other():
                    raise one.unread
        return copies

    # --- write ------------------------------------------------------------------------------------

    def add(self, change: TableChange) -> None:
        """Add a change; it is on disk twice when this returns.

        Raises:
            OSError: The disk refused, and neither copy has the change. If one could not be
                restored, that is logged.
        """
        if self.sizes() != self._sizes_when_alike:
            copies = self._read()  # without changes from this number on: they were refused
            self._make_alike(copies, [one for one in _merged(copies) if one.number < change.number])
        add_to_each(self._logs, [_document(change)])
        self._sizes_when_alike = self.sizes()

    def _make_alike(self, copies: Sequence[_Copy], changes: Sequence[TableChange]) -> None:
        wanted = {one.number: one for one in changes}
        if not all(one.is_sound and one.changes == wanted for one in copies):
            self._write(changes)
        self._sizes_when_alike = self.sizes()

    def _write(self, changes: Sequence[TableChange]) -> None:
        self._sizes_when_alike = None
        for log in self._logs:
            log.rewrite(map(_document, changes))
        self._sizes_when_alike = self.sizes()

    def drop(self, number: int) -> None:
        """Remove the changes up to a number, which both generations of the table have.

        Raises:
            OSError: The disk refused, or a copy cannot be read and may have more: both stay.
        """
        if not any(self.sizes()):
            return
        copies = self._read()
        for one in copies:
            if one.unread:
                raise one.unread
        self._write([one for one in _merged(copies) if one.number > number])


def _merged(copies: Sequence[_Copy]) -> list[TableChange]:
    """Return the changes of all copies, in order."""
    found: dict[int, TableChange] = {}
    for one in copies:
        found |= one.changes
    return [found[number] for number in sorted(found)]


def _read(log: ChangeLog) -> _Copy:
    try:
        found = log.read()
    except DamagedFileError as error:
        return _Copy(log, {}, damage=str(error))
    except OSError as error:
        return _Copy(log, {}, unread=error)
    changes = []
    for document in found.documents:
        with contextlib.suppress(ValidationError):
            changes.append(TableChange.model_validate_json(document))
    lines = found.damaged + len(found.documents) - len(changes)
    damage = f"has {lines} damaged lines" if lines else None
    return _Copy(log, {one.number: one for one in changes}, damage)


def _document(change: TableChange) -> bytes:
    return change.model_dump_json(exclude_none=True).encode()
