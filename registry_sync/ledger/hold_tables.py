"""Holds and the freeze of one node: their rows, and the copy of them in the holds file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, update

from registry_sync.domain import (
    LIVE_FAILURE,
    Freeze,
    Hold,
    HoldChange,
    HoldsSnapshot,
    Initiator,
    ends_by_operator,
)
from registry_sync.errors import LedgerError
from registry_sync.ledger.holds_file import DamagedHoldsError, HoldsFile
from registry_sync.ledger.rows import record_of, values_of
from registry_sync.ledger.scoped_tables import EndableTable
from registry_sync.ledger.tables import freezes, holds


class HoldTables:
    """Reads and writes holds and freezes in the transactions of its caller.

    ``copy_is_due`` while the holds file lacks the latest holds.
    """

    def __init__(
        self,
        node_id: str,
        clock: Callable[[], float],
        rejections: EndableTable,
        file: HoldsFile | None,
    ) -> None:
        self.holds = EndableTable(holds, node_id, clock)
        self.freezes = EndableTable(freezes, node_id, clock)
        self.copy_is_due = False
        self._clock = clock
        self._rejections = rejections
        self._file = file

    def freeze_in_force(self, connection: Connection) -> Freeze | None:
        """Return the freeze in force, or None."""
        found = connection.execute(self.freezes.in_force()).one_or_none()
        return record_of(Freeze, found) if found else None

    def hold(self, connection: Connection, hold: Hold, at: float | None = None) -> None:
        """Add a hold; an older hold of its alias ends ``at`` these epoch seconds, or now."""
        self.holds.end(connection, ended_at=at, **_alias_of(hold))
        self.holds.add(connection, values_of(hold))

    def set_aspired(
        self, connection: Connection, hold: Hold, version: int, creation: str | None
    ) -> bool:
        """Set the unknown aspired version of a hold in force; return whether there was one."""
        unknown = self.holds.mine(ended_at=None, **_identity(hold), aspired_version=None)
        known = {"aspired_version": version, "aspired_creation": creation}
        return connection.execute(update(holds).where(unknown).values(**known)).rowcount > 0

    def end(self, connection: Connection, hold: Hold, ended_by: str, at: float | None) -> bool:
        """End a hold, if it is in force; return whether it was.

        If an operator ends the hold of an automatic rollback, the rejection ends with it.
        """
        ended = self.holds.end(connection, ended_by=ended_by, ended_at=at, **_identity(hold))
        if ended and ends_by_operator(hold, ended_by):
            version: dict[str, Any] = {"model": hold.model, "version": hold.aspired_version}
            self._rejections.end(connection, **version, failure=LIVE_FAILURE)
        return ended

    def add_automatic(self, connection: Connection, hold: Hold) -> bool:
        """Add the hold of an automatic rollback, unless it is recorded; return whether it was new.

        An operator's hold stays in force; the new one is then history only.
        """
        alias = _alias_of(hold)
        if self.holds.has(connection, **alias, at=hold.at, asked_by=str(hold.asked_by)):
            return False
        current = connection.execute(self.holds.in_force(**alias)).one_or_none()
        if current is not None and current.asked_by != Initiator.GATEWAY:
            self.holds.add(connection, {**values_of(hold), "ended_at": self._clock()})
        else:
            self.hold(connection, hold)
        return True

    def freeze(self, connection: Connection, freeze: Freeze) -> None:
        """Add a freeze, unless one is in force."""
        if self.freeze_in_force(connection) is None:
            self.freezes.add(connection, values_of(freeze))

    # --- decisions recorded late ------------------------------------------------------------------

    def record_late(self, connection: Connection, change: HoldChange) -> None:
        """Record a decision after its time, unless it is recorded already.

        A newer decision about the same alias, or the node, stays in force.
        """
        by, at = change.asked_by, change.at
        if change.hold is None:
            self._freeze_late(connection, change)
        elif change.what == "hold":
            self._hold_late(connection, change, change.hold)
        elif not self.end(connection, change.hold, by, at):
            self.holds.sign(connection, ended_by=by, ended_at=at, **_identity(change.hold))

    def _hold_late(self, connection: Connection, change: HoldChange, hold: Hold) -> None:
        if self.holds.has(connection, **_identity(hold)):
            return
        changed_at = self.holds.changed_at(connection, **_alias_of(hold))
        if changed_at is not None and changed_at > change.at:
            self.holds.add(connection, {**values_of(hold), "ended_at": changed_at})
        else:
            self.hold(connection, hold, change.at)

    def _freeze_late(self, connection: Connection, change: HoldChange) -> None:
        current = self.freeze_in_force(connection)
        if change.what == "unfreeze":
            if current is not None and current.at <= change.at:
                by, at = change.asked_by, change.at
                self.freezes.end(connection, ended_by=by, ended_at=at)
            return
        if current is not None or self.freezes.has(connection, at=change.at):
            return
        changed_at = self.freezes.changed_at(connection)
        is_over = changed_at is not None and changed_at > change.at
        freeze = values_of(Freeze(change.asked_by, change.at))
        self.freezes.add(connection, {**freeze, "ended_at": changed_at if is_over else None})

    # --- the holds file ---------------------------------------------------------------------------

    def copy(self, connection: Connection) -> None:
        """Write the holds and freeze in force to the holds file, before the transaction ends.

        A disk that refuses the copy refuses no decision; `copy_is_due` stays set until it is
        written.
        """
        if self._file is not None:
            try:
                self._file.copy(self._snapshot(connection))
            except LedgerError:
                self.copy_is_due = True
            else:
                self.copy_is_due = False

    def _snapshot(self, connection: Connection) -> HoldsSnapshot:
        rows = connection.execute(self.holds.in_force())
        return HoldsSnapshot(
            holds=tuple(record_of(Hold, row) for row in rows),
            freeze=self.freeze_in_force(connection),
        )

    def restore(self, connection: Connection) -> None:
        """Fill an empty ledger from the holds file.

        If the file is damaged, the node is frozen: what operators held or pinned is unknown.

        Raises:
            LedgerError: A newer release wrote the file.
        """
        if self._file is None:
            return
        try:
            found = self._file.read()
        except DamagedHoldsError as error:
            self._file.set_aside(
                error,
                instead="what operators held, pinned or froze is lost with the ledger, so this "
                "node is frozen: every alias stays where it is until `registry-gateway unfreeze`",
            )
            found = HoldsSnapshot(freeze=Freeze(Initiator.RECOVERY, self._clock()))
        for hold in found.holds:
            self.holds.add(connection, values_of(hold))
        if found.freeze:
            self.freezes.add(connection, values_of(found.freeze))

    def mend_file(self, connection: Connection) -> None:
        """Write the holds file anew if it is missing or damaged.

        Does nothing while a copy is due: the file may then hold what the ledger rolled back.
        """
        if self._file is None or self.copy_is_due:
            return
        try:
            self._file.read()
            if self._file.exists():
                return
        except DamagedHoldsError as error:
            self._file.set_aside(
                error, instead="nothing is lost: it is written anew from the ledger"
            )
        except LedgerError:
            return  # a newer release wrote it
        with contextlib.suppress(LedgerError):
            snapshot = self._snapshot(connection)
            if snapshot != HoldsSnapshot():
                self._file.write(snapshot)


def _alias_of(hold: Hold) -> dict[str, Any]:
    return {"model": hold.model, "alias": hold.alias}


def _identity(hold: Hold) -> dict[str, Any]:
    """Return the columns that identify a hold."""
    of_this = {"at": hold.at, "lasting": hold.lasting, "target_version": hold.target_version}
    return {**_alias_of(hold), **of_this}
