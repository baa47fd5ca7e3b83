"""Probes replicas through the request path, and replaces those that are stuck or wrong.

The replicas of a version are probed one after the other, and one is replaced at a time. So a fault
that affects all of them for a moment, such as a feature store that is away, takes no version away
that has two or more. A replica whose example is wrong twice in a row takes no new requests, and
ends with its last one. Callers of a version with one replica wait for the next.

The resident set replaces a replica that died: at once if an active alias means its version or it
has siblings, else with the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from gateway.contract import ArtifactRef
from gateway.errors import NotDeliveredError, TableFileError
from gateway.routing import TableFile
from gateway.serving.load_orders import LoadOrders
from gateway.serving.residency import Resident, ResidentSet

_log = structlog.get_logger("gateway.serving.supervision")

_SECOND_PROBE_S = 2.0
"""The pause between a wrong example and its second probe."""
_PAUSE_RATIO = 9
"""Pause per second of a probe, so that probes take a tenth of a worker's time."""
_LONGEST_PAUSE_S = 600.0


class Supervisor:
    """Probes every ready replica regularly. Event loop only."""

    def __init__(
        self,
        residents: ResidentSet,
        load_orders: LoadOrders,
        table_file: TableFile,
        *,
        interval_s: float,
        request_timeout_s: float,
        stuck_grace_s: float,
        idle_s: float,
    ) -> None:
        self._residents = residents
        self._load_orders = load_orders
        self._table_file = table_file
        self._interval_s = interval_s
        self._request_timeout_s = request_timeout_s
        self._stuck_grace_s = stuck_grace_s
        self._idle_s = idle_s
        self._hot: list[ArtifactRef] | None = []
        self._probed: set[ArtifactRef] = set()

    async def run(self) -> None:
        """Probe until cancelled. A replica that does not answer delays no other version."""
        async with asyncio.TaskGroup() as probes:
            while True:
                await asyncio.sleep(self._interval_s)
                try:
                    for group in self._unprobed():
                        probes.create_task(self._probe_group(group))
                    self._residents.end_idle(self._idle_s, self._load_orders.ends_when_idle)
                    await self.remember_hot()
                    await asyncio.to_thread(self._table_file.write_due)
                except Exception:  # noqa: BLE001  # the next round follows
                    _log.exception("supervision.failed")

    async def remember_hot(self) -> None:
        """Save which versions are resident, for the next start."""
        hot = self._residents.hottest()
        if hot == self._hot:
            return
        try:
            await asyncio.to_thread(self._table_file.save_hot, hot)
        except TableFileError:
            self._hot = None  # `TableFile` reports it; the next round tries again
        else:
            self._hot = hot

    def _unprobed(self) -> list[list[Resident]]:
        """Return the ready replicas of each version whose last round is over."""
        groups: dict[ArtifactRef, list[Resident]] = {}
        for one in self._residents.residents():
            if one.ready and one.key not in self._probed:
                groups.setdefault(one.key, []).append(one)
        return list(groups.values())

    async def _probe_group(self, group: list[Resident]) -> None:
        """Probe the replicas of a version one by one, until one is replaced."""
        key = group[0].key
        self._probed.add(key)
        try:
            for one in group:
                if one.ready:
                    await self._check(one)
                if not one.ready:
                    return
            # The worker's own measurement: if it is busy, its reply is late but its example is not.
            longest_s = max(one.replica.example_s for one in group)
            pause_s = min(_PAUSE_RATIO * longest_s, _LONGEST_PAUSE_S)
            if pause_s > self._interval_s:
                await asyncio.sleep(pause_s)
        except Exception:  # noqa: BLE001  # the other replicas are probed on
            _log.exception("supervision.failed", replica=str(key))
        finally:
            self._probed.discard(key)

    async def _check(self, resident: Resident) -> None:
        """Probe a replica; replace it if its example is wrong twice."""
        if not await self._is_wrong(resident):
            return
        await asyncio.sleep(min(_SECOND_PROBE_S, self._interval_s))
        if not (wrong := await self._is_wrong(resident)):
            return
        siblings = [one for one in self._residents.residents() if one.key == resident.key]
        troubled = self._residents.load_history.trouble(resident.key) is not None
        if resident.ready and may_go(resident, siblings, troubled=troubled):
            reason = f"it answered its own example wrongly, twice: {wrong}"
            self._residents.replace(resident, reason)

    async def _is_wrong(self, resident: Resident) -> str:
        """Probe a replica; return what is wrong with its example, or an empty text.

        A replica that does not answer is ended, unless it is busy.
        """
        replica = resident.replica
        own_s = self._load_orders.timeout_s(resident.key) or 0.0
        timeout_s = max(own_s, self._request_timeout_s) + self._stuck_grace_s
        try:
            alive = await replica.probe(timeout_s)
        except TimeoutError:
            if replica.in_flight:
                return ""  # busy: `Replica` ends it once it is stuck
            _log.warning("probe.failed", replica=str(resident.key), reason="no answer in time")
            replica.kill(f"it did not answer a probe within {timeout_s:g} s")
            return ""
        except NotDeliveredError:
            return ""
        except Exception:  # noqa: BLE001  # the other replicas are probed on
            _log.exception("probe.failed", replica=str(resident.key))
            replica.kill("its probe failed in the gateway")
            return ""
        self._residents.measured(resident, alive.private_bytes)
        if alive.example_ok:
            return ""
        _log.warning("probe.failed", replica=str(resident.key), reason=alive.message)
        return alive.message or "without a message"


def may_go(wrong: Resident, siblings: Sequence[Resident], *, troubled: bool) -> bool:
    """Whether a wrong replica may be replaced now. Pure.

    Not while a sibling loads or ends, nor while the version pauses after failures: it would have no
    successor soon.
    """
    return not troubled and all(one.ready for one in siblings if one is not wrong)
