"""The rows of one node in the ledger's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
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
    """The rows of one node in a table."""

    def __init__(self, table: Table, node_id: str) -> None:
        self._table = table
        self._node_id = node_id

    def mine(self, **values: object) -> ColumnElement[bool]:
        """Return the condition for this node's rows with these values."""
        clause = self._table.c.node_id == self._node_id
        for name, value in values.items():
            column = self._table.c[name]
            clause = clause & (column.is_(None) if value is None else column == value)
        return clause

    def select(self, **values: object) -> Select[Any]:
        """Return the query for this node's rows with these values."""
        return select(self._table).where(self.mine(**values))

    def has(self, connection: Connection, **values: object) -> bool:
        """Return whether there is a row with these values."""
        return connection.execute(self.select(**values).limit(1)).first() is not None

    def newest(self, limit: int, **values: object) -> Select[Any]:
        """Return the query for the newest rows, newest first."""
        return self.select(**values).order_by(self._table.c.id.desc()).limit(limit)

    def last_by(self, column: str, at: str) -> Select[Any]:
        """Return the query for each value of a column, with its newest time ``at``."""
        value = self._table.c[column]
        return select(value, func.max(self._table.c[at])).where(self.mine()).group_by(value)

    def add(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Add a row."""
        connection.execute(insert(self._table).values(node_id=self._node_id, **values))

    def replace(self, connection: Connection, values: Mapping[str, Any], *key: str) -> None:
        """Add a row in place of the rows with the same ``key`` columns."""
        same = self.mine(**{name: values[name] for name in key})
        connection.execute(delete(self._table).where(same))
        self.add(connection, values)

    def remove(self, connection: Connection, which: Sequence[Mapping[str, object]]) -> None:
        """Remove the rows with the values of any of ``which``; all name the same columns."""
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


class EndableTable(NodeTable):
    """Rows that are in force until they are ended, and history afterwards."""

    def __init__(self, table: Table, node_id: str, clock: Callable[[], float]) -> None:
        super().__init__(table, node_id)
        self._clock = clock

    def in_force(self, **values: object) -> Select[Any]:
        """Return the query for the rows in force with these values."""
        return self.select(ended_at=None, **values)

    def end(
        self,
        connection: Connection,
        *,
        ended_by: str | None = None,
        ended_at: float | None = None,
        **values: object,
    ) -> bool:
        """Release the rows in force with these values; return whether there were any.

        ``ended_by`` is None where another row replaces the ended one; ``ended_at`` None is now.
        """
        by = {} if ended_by is None else {"ended_by": str(ended_by)}
        done = connection.execute(
            update(self._table)
            .where(self.mine(ended_at=None, **values))
            .values(ended_at=self._clock() if ended_at is None else ended_at, **by)
        )
        return done.rowcount > 0

    def sign(
        self, connection: Connection, *, ended_by: str, ended_at: float, **values: object
    ) -> None:
        """Record the initiator and time of an end on rows that have been replaced since."""
        over = self.mine(ended_by=None, **values) & self._table.c.ended_at.is_not(None)
        by = {"ended_by": str(ended_by), "ended_at": ended_at}
        connection.execute(update(self._table).where(over).values(**by))

    @property
    def _changed_at(self) -> ColumnElement[float]:
        return func.coalesce(self._table.c.ended_at, self._table.c.at)

    def changed_at(self, connection: Connection, **values: object) -> float | None:
        """Return the time of the last addition or end of rows with these values, or None."""
        newest = select(func.max(self._changed_at)).where(self.mine(**values))
        found: float | None = connection.execute(newest).scalar()
        return found

    def last_changed(self, limit: int, **values: object) -> Select[Any]:
        """Return the query for the rows added or ended last, newest first."""
        return self.select(**values).order_by(self._changed_at.desc()).limit(limit)

    def remove_ended(self, connection: Connection, kept: int) -> None:
        """Remove the ended rows that are not among the newest ``kept`` rows."""
        newest = self.newest(kept).with_only_columns(self._table.c.id)
        old = self.mine() & self._table.c.ended_at.is_not(None) & self._table.c.id.not_in(newest)
        connection.execute(delete(self._table).where(old))

    def remove_gone(
        self, connection: Connection, gone: AbstractSet[tuple[str, int]], kept: int
    ) -> None:
        """Remove the rows in force of versions that are gone, except the newest ``kept``."""
        rows = connection.execute(self.in_force().order_by(self._table.c.id.desc()))
        ids = [row.id for row in rows if (row.model, row.version) in gone]
        self.remove(connection, [{"id": number} for number in ids[kept:]])
