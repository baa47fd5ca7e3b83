"""Changes of the catalogue. They move no alias."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from gateway.contract import (
    CONTRACT_VERSION,
    Ack,
    AliasRef,
    ArtifactRef,
    Catalogue,
    CatalogueModel,
    ModelChange,
    UnchangedCatalogue,
)
from gateway.errors import GatewayError, RolloutRefusedError
from gateway.observability import Telemetry
from gateway.routing import Node, RouteTable, TableFile
from gateway.serving import ResidentSet


class CatalogueChanges:
    """Takes the catalogue of the control plane. Event loop only.

    ``lock`` is held while a table is decided and written.
    """

    def __init__(
        self,
        node: Node,
        residents: ResidentSet,
        table_file: TableFile,
        telemetry: Telemetry,
        lock: asyncio.Lock,
    ) -> None:
        self._node = node
        self._residents = residents
        self._table_file = table_file
        self._telemetry = telemetry
        self._lock = lock
        self._revision = 0

    async def take(self, catalogue: Catalogue, document: bytes) -> Ack:
        """Take a snapshot of the registry. It activates and retires nothing.

        ``document`` is the catalogue as it was sent, and is written to disk unchanged: encoding
        thousands of versions again would delay the event loop, even on a thread.

        Raises:
            RolloutRefusedError: The contract is newer, or the snapshot older than the present one.
        """
        if catalogue.contract_version > CONTRACT_VERSION:
            raise RolloutRefusedError(
                "contract_version",
                f"this gateway speaks contract {CONTRACT_VERSION}, the control plane "
                f"{catalogue.contract_version}: upgrade the gateway first",
            )
        async with self._lock:
            node = self._node
            if (
                catalogue.writer == node.catalogue_writer
                and node.catalogue_epoch is not None
                and catalogue.epoch <= node.catalogue_epoch
            ):
                raise RolloutRefusedError(
                    "stale_epoch",
                    f"the epoch must be above {node.catalogue_epoch}, the present one",
                )
            present = node.table.catalogue
            if catalogue.complete or present is None or not present.complete:
                await asyncio.to_thread(self._table_file.keep_catalogue, document)
            node.catalogue_writer, node.catalogue_epoch = catalogue.writer, catalogue.epoch
            self._revision = 0
            before = node.table
            await self._list(before.with_catalogue(catalogue), news=True)
            self._renew_fetched_copies(before)
        self._residents.rebalance()
        await self._telemetry.forget_all_but(self._is_known)
        return Ack(generation=self._node.table.generation)

    async def take_model(self, change: ModelChange, document: bytes) -> Ack:
        """Take the change of one model since the present snapshot.

        ``document`` is the change as it was sent, in one line.

        Raises:
            RolloutRefusedError: The change follows another snapshot, or the file of changes is
                full: the control plane must send a snapshot.
        """
        async with self._lock:
            node = self._node
            self._check_epoch(change.writer, change.epoch)
            if change.revision <= self._revision:
                return Ack(generation=node.table.generation)
            if await asyncio.to_thread(self._table_file.are_model_changes_long):
                raise RolloutRefusedError(
                    "stale_epoch", "the file of changes is full: send a whole catalogue"
                )
            complete = node.table.catalogue is None or node.table.catalogue.complete
            if complete:
                await asyncio.to_thread(self._table_file.keep_model, document)
            self._revision = change.revision
            before = node.table
            table = before.with_model(change.name, change.model)
            await self._list(table, news=False, models=(change.name,))
            self._renew_fetched_copies(before)
        self._residents.rebalance()
        if change.model is None or _has_fewer(before, change.model):
            await self._telemetry.forget_all_but(self._is_known)
        return Ack(generation=self._node.table.generation)

    async def confirm(self, unchanged: UnchangedCatalogue) -> Ack:
        """Note that the registry lists the same as before. Not written to disk.

        Raises:
            RolloutRefusedError: The present snapshot is another one: the control plane must send
                its own.
        """
        async with self._lock:
            node = self._node
            self._check_epoch(unchanged.writer, unchanged.epoch)
            table = node.table.with_listing(unchanged.listed_at, unchanged.source_error)
            node.replace(table, (), news=False, models=())
        return Ack(generation=self._node.table.generation)

    def _check_epoch(self, writer: str, epoch: int) -> None:
        node = self._node
        if (writer, epoch) != (node.catalogue_writer, node.catalogue_epoch):
            raise RolloutRefusedError(
                "stale_epoch",
                f"the present snapshot has epoch {node.catalogue_epoch}: send a whole catalogue",
            )

    async def _list(
        self, table: RouteTable, *, news: bool, models: Collection[str] | None = None
    ) -> None:
        """Replace the table by one with another catalogue.

        ``models`` are the models that differ, or None if any may differ.
        """
        before = self._node.table
        moved: list[AliasRef] = []
        if table.active is not before.active:
            moved = [key for key, one in table.active.items() if one is not before.active[key]]
            await asyncio.to_thread(self._table_file.keep_change, table, moved)
        self._node.replace(table, moved, news=news, models=models)

    def _renew_fetched_copies(self, before: RouteTable) -> None:
        """End the pause of versions whose damaged copies were fetched again."""
        for one in self._node.damaged():
            if _lists(self._node.table, one.ref) and not _lists(before, one.ref):
                self._node.copy_whole(one.digest)
                self._residents.renew(one.ref)

    def _is_known(self, model: str, version: int | None) -> bool:
        """Look in the present table, which may be replaced between two slices."""
        return self._node.table.knows(model, version)


def _has_fewer(before: RouteTable, model: CatalogueModel) -> bool:
    """Return whether a model has lost versions since a table."""
    return before.knows(model.name, None) and len(before.model(model.name).versions) > len(
        model.versions
    )


def _lists(table: RouteTable, key: ArtifactRef) -> bool:
    """Return whether a table lists these bytes of a version as present on this node."""
    with contextlib.suppress(GatewayError):
        return table.version(key.model, key.version).digest == key.digest
    return False
