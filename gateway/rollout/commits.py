"""Changes of the route table: decided, written to disk, and only then in force.

Acknowledged changes survive a crash. Changes that wait for the disk at the same time share one
write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.contract import AliasRef
from gateway.errors import RolloutRefusedError, TableFileError
from gateway.observability import Telemetry
from gateway.routing import Node, RouteTable, TableFile

_log = structlog.get_logger("gateway.rollout.commits")

Decide = Callable[[RouteTable], RouteTable]


@dataclass(frozen=True, slots=True)
class _Change:
    """A change that waits for its write.

    Attributes:
        key: The alias that may move.
        decide: Returns the next table.
        done: The tables before and after the change.
    """

    key: AliasRef
    decide: Decide
    done: asyncio.Future[tuple[RouteTable, RouteTable]]

    def refuse(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Commits:
    """Commits changes of aliases. Event loop only.

    Attributes:
        lock: Held while a table is decided and written; for the changes of the catalogue too.
    """

    def __init__(self, node: Node, table_file: TableFile, telemetry: Telemetry) -> None:
        self.lock = asyncio.Lock()
        self._node = node
        self._table_file = table_file
        self._telemetry = telemetry
        self._waiting: list[_Change] = []
        self._committing: asyncio.Task[None] | None = None

    async def commit(self, key: AliasRef, decide: Decide) -> tuple[RouteTable, RouteTable]:
        """Commit a change of one alias, together with the other changes that wait.

        Args:
            key: The alias.
            decide: Returns the next table, or the same one; raises to refuse.

        Returns:
            The tables before and after the change.

        Raises:
            RolloutRefusedError: The change was refused, or could not be written.
        """
        loop = asyncio.get_running_loop()
        change = _Change(key, decide, loop.create_future())
        self._waiting.append(change)
        if self._committing is None:
            self._committing = loop.create_task(self._commit_waiting())
        return await change.done

    async def close(self) -> None:
        """Wait for the write that is under way."""
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)

    async def _commit_waiting(self) -> None:
        """Write until no change waits, even if its caller is cancelled."""
        try:
            while self._waiting:
                async with self.lock:
                    batch, self._waiting = self._waiting, []
                    await self._commit_batch([one for one in batch if not one.done.done()])
        finally:
            self._committing = None
            for one in self._waiting:
                one.done.cancel()
            self._waiting = []

    async def _commit_batch(self, batch: list[_Change]) -> None:
        """Commit a batch, and answer each of its changes even after an error."""
        try:
            await self._commit_together(batch)
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            _log.exception("commit.failed")
            for one in batch:
                one.refuse(error)

    async def _commit_together(self, batch: list[_Change]) -> None:
        table, decided = self._node.table, list[tuple[_Change, RouteTable, RouteTable]]()
        for one in batch:
            try:
                after = one.decide(table)
            except Exception as error:  # noqa: BLE001 - its caller gets it; the others go on
                one.refuse(error)
                continue
            decided.append((one, table, after))
            table = after
        if table is not self._node.table:
            moved = [one.key for one, before, after in decided if before is not after]
            try:
                await asyncio.to_thread(self._table_file.save_change, table, moved)
            except TableFileError as error:
                for one, _, _ in decided:
                    one.refuse(RolloutRefusedError("table_write_failed", str(error)))
                return
            # The catalogue cannot have changed since: its changes hold the same lock.
            self._node.replace(table, moved, models={alias.model for alias in moved})
            self._telemetry.generation.set(table.generation)
        for one, before, after in decided:
            if not one.done.done():
                one.done.set_result((before, after))
