"""Watching replicas: a probe through the request path, regularly; a stuck or wrong worker ends.

A worker that dies is replaced by `gateway.residency`: at once if it serves an active alias or has
siblings, else by the next request for its version; a version that crashes again and again is left
alone for a while.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.errors import NotDeliveredError, TableFileError
from gateway.residency import ResidentSet
from gateway.room import ReplicaKey
from gateway.table_file import TableFile
from gateway.telemetry import Telemetry
from gateway.versions import Versions
from gateway.workers import Resident

_log = structlog.get_logger("gateway.supervision")


class Supervisor:
    """Probes every ready replica in turn. Event loop only."""

    def __init__(
        self,
        residents: ResidentSet,
        versions: Versions,
        table_file: TableFile,
        telemetry: Telemetry,
        *,
        interval_s: float,
        request_timeout_s: float,
        stuck_grace_s: float,
        idle_s: float,
    ) -> None:
        """Store. All in seconds; ``idle_s``: after which an on-demand version ends."""
        self._residents = residents
        self._versions = versions
        self._table_file = table_file
        self._telemetry = telemetry
        self._interval_s = interval_s
        self._request_timeout_s = request_timeout_s
        self._stuck_grace_s = stuck_grace_s
        self._idle_s = idle_s
        self._hot: list[ReplicaKey] = []

    async def run(self) -> None:
        """Probe until cancelled. One that does not answer does not delay the next round."""
        async with asyncio.TaskGroup() as probes:
            while True:
                await asyncio.sleep(self._interval_s)
                for one in self._residents.residents():
                    probes.create_task(self._probe(one))
                try:
                    self._residents.end_idle(self._idle_s, self._versions.ends_when_idle)
                    await self.remember_hot()
                    self._residents.cool()
                except Exception:  # noqa: BLE001  # the next round must come
                    _log.exception("supervision.failed")

    async def remember_hot(self) -> None:
        """Write down which versions have a worker, for the next start."""
        hot = self._residents.hottest()
        if hot == self._hot:
            return
        try:
            await asyncio.to_thread(self._table_file.save_hot, hot)
        except TableFileError as error:
            _log.warning("hot.not_written", reason=str(error))
        else:
            self._hot = hot

    async def _probe(self, resident: Resident) -> None:
        replica = resident.replica
        if not resident.ready:
            return
        own_s = self._versions.timeout_s(resident.key) or 0.0
        timeout_s = max(own_s, self._request_timeout_s) + self._stuck_grace_s
        try:
            alive = await replica.probe(timeout_s)
        except TimeoutError:
            if replica.in_flight:
                return  # busy, for as long as the model's own time-out allows: `Replica` counts
            _log.warning("probe.failed", replica=str(resident.key), reason="no answer in time")
            replica.kill(f"it did not answer a probe within {timeout_s:g} s")
            return
        except NotDeliveredError:
            return
        except Exception:  # noqa: BLE001  # one odd worker must not end the watch over the others
            _log.exception("probe.failed", replica=str(resident.key))
            replica.kill("it answered a probe with something that is no answer")
            return
        self._residents.measured(resident, alive.private_bytes)
        if not alive.example_ok:
            _log.warning("probe.failed", replica=str(resident.key), reason=alive.message)
            replica.kill(f"it answered its own example wrongly: {alive.message}")
