"""Watching replicas: a probe through the request path, regularly; a stuck or wrong worker ends.

A worker that dies is replaced by the next request for its version (`gateway.residency`), which
also leaves a version alone for a while that crashes again and again.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from gateway.errors import NotDeliveredError
from gateway.residency import Resident, ResidentSet
from gateway.telemetry import Telemetry

_log = structlog.get_logger("gateway.supervision")


class Supervisor:
    """Probes every ready replica in turn. Event loop only."""

    def __init__(
        self,
        residents: ResidentSet,
        telemetry: Telemetry,
        *,
        interval_s: float,
        probe_timeout_s: float,
    ) -> None:
        """Store. Both in seconds."""
        self._residents = residents
        self._telemetry = telemetry
        self._interval_s = interval_s
        self._probe_timeout_s = probe_timeout_s

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await asyncio.gather(*(self._probe(one) for one in self._residents.residents()))

    async def _probe(self, resident: Resident) -> None:
        replica = resident.replica
        if replica is None or not resident.ready:
            return
        try:
            alive = await replica.probe(self._probe_timeout_s)
        except TimeoutError:
            if replica.in_flight:
                return  # busy, for as long as the model's own time-out allows: `Replica` counts
            _log.warning("probe.failed", replica=str(resident.key), reason="no answer in time")
            replica.kill(f"it did not answer a probe within {self._probe_timeout_s:g} s")
            return
        except NotDeliveredError:
            return
        except Exception:  # noqa: BLE001  # one odd worker must not end the watch over the others
            _log.exception("probe.failed", replica=str(resident.key))
            replica.kill("it answered a probe with something that is no answer")
            return
        self._residents.measured(resident, alive.private_bytes)
        labels = (resident.key.model, str(resident.key.version))
        self._telemetry.resident_bytes.labels(*labels).set(alive.private_bytes)
        if not alive.example_ok:
            _log.warning("probe.failed", replica=str(resident.key), reason=alive.message)
            with contextlib.suppress(NotDeliveredError):
                replica.kill(f"it answered its own example wrongly: {alive.message}")
