"""The changes of the route table since it was written as a whole, each kept twice.

``table.changes`` and ``table.changes.copy`` have the same lines, so that no one damaged file loses
a change that was acknowledged. A change is added to both before it counts; what one of them does
not take, neither has. Where the two are not alike, as a crash or damage leaves them, both are
written anew with what they have together, at once or, if the disk refuses that, before the next
change is added: each is whole again before the other one may be damaged.

Each change has a number, the next after the one before, and the whole table says which is its last:
what a crash has left beside a newer table counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.contract import ActiveAlias, AliasHold, AliasName
from gateway.routing import DamagedFiles
from gateway.system.files import ChangeLog, Found, add_to_each
from gateway.worker.process.guarded_read import DamagedFileError

_MOST_BYTES = 64 * 1024 * 1024
_ONE_LEFT = "the other copy counts: nothing is lost"
_BOTH_DAMAGED = "what either copy has counts"
_log = structlog.get_logger("gateway.routing.table_changes")


class TableChange(BaseModel):
    """One change of a route table, or several that were made together.

    Attributes:
        number: Its place among all changes.
        generation: Of the table after it.
        active: The aliases that moved, as they are after it.
        inactive: Those that are gone.
        holds: All holds after it; None: they are as they were before.
    """

    model_config = ConfigDict(extra="ignore")

    number: int
    generation: int
    active: list[ActiveAlias] = []
    inactive: list[AliasName] = []
    holds: list[AliasHold] | None = None


@dataclass(frozen=True, slots=True)
class _Copy:
    """What one of the two files has.

    Attributes:
        changes: By their numbers.
        damage: What is wrong with it, as the end of a sentence that begins with "it".
        unread: Why it could not be read, which says nothing of what it has.
    """

    log: ChangeLog
    changes: dict[int, TableChange]
    damage: str | None = None
    unread: OSError | None = None

    @property
    def is_sound(self) -> bool:
        return self.damage is None and self.unread is None

    def stands_in(self) -> bool:
        """Whether it has what the other copy has, which cannot be read."""
        return self.is_sound and os.path.lexists(self.log.path)


class TableChanges:
    """Reads and writes both copies. Blocking: call from a thread, one call at a time."""

    def __init__(self, node_dir: Path, damaged: DamagedFiles) -> None:
        """Store where the files are, and who is told of damage."""
        self._logs = (
            ChangeLog(node_dir / "table.changes", _MOST_BYTES),
            ChangeLog(node_dir / "table.changes.copy", _MOST_BYTES),
        )
        self._damaged = damaged
        self._alike_at: list[int] | None = None
        self.path = self._logs[0].path

    def size_bytes(self) -> int:
        """Return how much one copy has."""
        return max(self._sizes())

    def _sizes(self) -> list[int]:
        return [one.size_bytes() for one in self._logs]

    # --- read -------------------------------------------------------------------------------------

    def load(self, number: int) -> list[TableChange]:
        """Return the changes above a number, in their order; each from whichever copy has it.

        Copies that are not alike become so, where the disk lets them.

        Raises:
            OSError: The system lets one not be read, and the other is not whole.
        """
        copies = self._read()
        changes = _merged(copies)
        if all(one.unread is None for one in copies):  # else the next change looks again
            try:
                self._make_alike(copies, changes)
            except OSError as error:
                _log.warning("table.changes_not_alike", reason=str(error))
        after = [one for one in changes if one.number > number]
        lost = after[-1].number - number - len(after) if after else 0
        if lost:
            _log.error("table.changes_lost", changes=lost)
        return after

    def go_on_from(self, number: int) -> bool:
        """Whether there are changes above a number, the one after it among them.

        Raises:
            OSError: As of `load`.
        """
        changes = self.load(number)
        return bool(changes) and changes[0].number == number + 1

    def _read(self) -> list[_Copy]:
        """Read both copies, and set aside one that is damaged where the other has what it has.

        Raises:
            OSError: As `load`.
        """
        copies = [_read(one) for one in self._logs]
        for one, other in zip(copies, reversed(copies), strict=True):
            path, has_all = one.log.path, one.changes.keys() <= other.changes.keys()
            instead = _ONE_LEFT if other.stands_in() else _BOTH_DAMAGED
            if one.damage is not None:
                self._damaged.found(path, one.damage, instead=instead, keep=has_all)
            elif one.unread is not None:
                reason = f"cannot be read: {one.unread.strerror}"
                self._damaged.found(path, reason, instead=instead, keep=False)
                if not other.stands_in():
                    raise one.unread
        return copies

    # --- write ------------------------------------------------------------------------------------

    def add(self, change: TableChange) -> None:
        """Add a change; it is on disk twice when this returns.

        Raises:
            OSError: The disk refused. Neither copy has it; if that fails too, the log says so.
        """
        if self._sizes() != self._alike_at:
            self._look_again(change.number)
        add_to_each(self._logs, [_document(change)])
        self._alike_at = self._sizes()

    def _look_again(self, below: int) -> None:
        """Make both copies alike, with what they have below a number: what has it was refused.

        Raises:
            OSError: The disk refused, or as `load`.
        """
        copies = self._read()
        self._make_alike(copies, [one for one in _merged(copies) if one.number < below])

    def _make_alike(self, copies: Sequence[_Copy], changes: Sequence[TableChange]) -> None:
        wanted = {one.number: one for one in changes}
        if not all(one.is_sound and one.changes == wanted for one in copies):
            self._write(changes)
        self._alike_at = self._sizes()

    def _write(self, changes: Sequence[TableChange]) -> None:
        self._alike_at = None
        for log in self._logs:
            log.begin_anew(map(_document, changes))

    def forget(self, number: int) -> None:
        """Forget the changes up to a number, which both generations of the table have.

        Raises:
            OSError: The disk refused: they count for nothing, and take room. Or a copy cannot be
                read, and may have what the other one has lost: both stay as they are.
        """
        if not self.size_bytes():
            return
        copies = self._read()
        for one in copies:
            if one.unread:
                raise one.unread
        self._write([one for one in _merged(copies) if one.number > number])
        self._alike_at = self._sizes()


def _merged(copies: Sequence[_Copy]) -> list[TableChange]:
    """Return the changes of all copies, in their order."""
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
    changes = _parsed(found)
    lines = found.damaged + len(found.documents) - len(changes)
    damage = f"has {lines} damaged lines" if lines else None
    return _Copy(log, {one.number: one for one in changes}, damage)


def _document(change: TableChange) -> bytes:
    return change.model_dump_json(exclude_none=True).encode()


def _parsed(found: Found) -> list[TableChange]:
    changes = []
    for document in found.documents:
        try:
            changes.append(TableChange.model_validate_json(document))
        except ValidationError:
            continue
    return changes
