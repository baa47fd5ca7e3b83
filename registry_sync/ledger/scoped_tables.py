"""One node's part of the ledger's tables: how it is asked, added to, released and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)


class NodeTable:
    """The rows of a table that are this node's."""

    def __init__(self, table: Table, node_id: str) -> None:
        """Store."""
        self._table = table
        self._node_id = node_id

    def mine(self, **values: object) -> ColumnElement[bool]:
        """Return what is true of this node's rows that have these values."""
        clause = self._table.c.node_id == self._node_id
        for name, value in values.items():
            column = self._table.c[name]
            clause = clause & (column.is_(None) if value is None else column == value)
        return clause

    def select(self, **values: object) -> Select[Any]:
        """Return the query for this node's rows that have these values."""
        return select(self._table).where(self.mine(**values))

    def newest(self, limit: int, **values: object) -> Select[Any]:
        """Return the query for those that were added last, the newest first."""
        return self.select(**values).order_by(self._table.c.id.desc()).limit(limit)

    def last_by(self, column: str, at: str) -> Select[Any]:
        """Return the query for each value of a column, and the newest of its times ``at``."""
        value = self._table.c[column]
        return select(value, func.max(self._table.c[at])).where(self.mine()).group_by(value)

    def add(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Add a row."""
        connection.execute(insert(self._table).values(node_id=self._node_id, **values))

    def replace(self, connection: Connection, values: Mapping[str, Any], *key: str) -> None:
        """Add a row instead of those that are the same in the columns ``key``."""
        same = self.mine(**{name: values[name] for name in key})
        connection.execute(delete(self._table).where(same))
        self.add(connection, values)

    def remove(self, connection: Connection, which: Sequence[Mapping[str, object]]) -> None:
        """Remove the rows that have the values of any of ``which``; all name the same columns."""
        if which:
            one = self.mine(**{name: bindparam(name) for name in which[0]})
            connection.execute(delete(self._table).where(one), which)

    def keep_newest(self, connection: Connection, count: int, *by: str) -> None:
        """Remove all but the newest rows of each combination of the columns ``by``."""
        rank = (
            func.row_number()
            .over(
                partition_by=[self._table.c[name] for name in by], order_by=self._table.c.id.desc()
            )
            .label("rank")
        )
        ranked = select(self._table.c.id, rank).where(self.mine()).subquery()
        old = self._table.c.id.in_(select(ranked.c.id).where(ranked.c.rank > count))
        connection.execute(delete(self._table).where(old))


class StandingTable(NodeTable):
    """Rows that stand until they are released, and are history from then on."""

    def __init__(self, table: Table, node_id: str, clock: Callable[[], float]) -> None:
        """Store. ``clock`` gives epoch seconds."""
        super().__init__(table, node_id)
        self._clock = clock

    def standing(self) -> Select[Any]:
        """Return the query for the rows that stand."""
        return self.select(released_at=None)

    def release(
        self,
        connection: Connection,
        *,
        released_by: str | None = None,
        released_at: float | None = None,
        **values: object,
    ) -> bool:
        """Release the rows that stand and have these values; whether there are any.

        Args:
            connection: In whose transaction.
            released_by: Who did; None: nobody in particular, as where another row replaces it.
            released_at: Epoch seconds; None: now.
            values: By column.
        """
        by = {} if released_by is None else {"released_by": str(released_by)}
        done = connection.execute(
            update(self._table)
            .where(self.mine(released_at=None, **values))
            .values(released_at=self._clock() if released_at is None else released_at, **by)
        )
        return done.rowcount > 0

    def sign(
        self, connection: Connection, *, released_by: str, released_at: float, **values: object
    ) -> None:
        """Note who had released rows that something else has replaced since, and when."""
        over = self.mine(released_by=None, **values) & self._table.c.released_at.is_not(None)
        by = {"released_by": str(released_by), "released_at": released_at}
        connection.execute(update(self._table).where(over).values(**by))

    def changed_at(self, connection: Connection, **values: object) -> float | None:
        """Return when rows with these values were added or released last, or None: never."""
        changed_at = func.max(func.coalesce(self._table.c.released_at, self._table.c.at))
        found: float | None = connection.execute(
            select(changed_at).where(self.mine(**values))
        ).scalar()
        return found

    def last_changed(self, limit: int, **values: object) -> Select[Any]:
        """Return the query for the rows that were added or released last, the newest first."""
        changed_at = func.coalesce(self._table.c.released_at, self._table.c.at)
        return self.select(**values).order_by(changed_at.desc()).limit(limit)

    def forget_released(self, connection: Connection, kept: int) -> None:
        """Remove what is released, but for what is among the newest ``kept`` rows."""
        newest = self.newest(kept).with_only_columns(self._table.c.id)
        old = self.mine() & self._table.c.released_at.is_not(None) & self._table.c.id.not_in(newest)
        connection.execute(delete(self._table).where(old))

    def forget_gone(
        self, connection: Connection, gone: AbstractSet[tuple[str, int]], kept: int
    ) -> None:
        """Remove what stands of versions that are gone, but for the newest ``kept`` rows of it."""
        rows = connection.execute(self.standing().order_by(self._table.c.id.desc()))
        ids = [row.id for row in rows if (row.model, row.version) in gone]
        self.remove(connection, [{"id": number} for number in ids[kept:]])
