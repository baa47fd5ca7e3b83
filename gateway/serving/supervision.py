"""Watching replicas: a probe through the request path, regularly; a stuck or wrong worker ends.

The workers of a version are looked at one after the other, and one of them goes at a time: what
makes all of them wrong for a moment (a feature store that blinks) takes no version away that has
two or more. A sole one is replaced: its callers wait, or are told 503, until another one comes up.
One that is wrong twice in a row takes no new requests, and ends when it has answered those it has.

A worker that dies is replaced by the resident set: at once if it serves an active alias or has
siblings, else by the next request for its version; a version that crashes again and again is left
alone for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from gateway.contract import ReplicaKey
from gateway.errors import NotDeliveredError, TableFileError
from gateway.observability import Telemetry
from gateway.routing import TableFile
from gateway.serving.load_orders import Versions
from gateway.serving.residency import Resident, ResidentSet

_log = structlog.get_logger("gateway.serving.supervision")

_SECOND_LOOK_S = 2.0
"""After an example that went wrong, the time until it is asked for once more."""
_REST_RATIO = 9
"""A worker is left alone for so many times as long as its example took: a tenth of its time."""
_LONGEST_REST_S = 600.0


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
        self._hot: list[ReplicaKey] | None = []
        self._watched: set[ReplicaKey] = set()

    async def run(self) -> None:
        """Probe until cancelled. One that does not answer does not delay the next round."""
        async with asyncio.TaskGroup() as probes:
            while True:
                await asyncio.sleep(self._interval_s)
                try:
                    for group in self._unwatched():
                        probes.create_task(self._watch(group))
                    self._residents.end_idle(self._idle_s, self._versions.ends_when_idle)
                    await self.remember_hot()
                    await asyncio.to_thread(self._table_file.write_due)
                except Exception:  # noqa: BLE001  # the next round must come
                    _log.exception("supervision.failed")

    async def remember_hot(self) -> None:
        """Write down which versions have a worker, for the next start."""
        hot = self._residents.hottest()
        if hot == self._hot:
            return
        try:
            await asyncio.to_thread(self._table_file.save_hot, hot)
        except TableFileError:
            self._hot = None  # told where the others are that the disk refuses; tried next round
        else:
            self._hot = hot

    def _unwatched(self) -> list[list[Resident]]:
        """Return the ready workers of each version whose last round is over."""
        groups: dict[ReplicaKey, list[Resident]] = {}
        for one in self._residents.residents():
            if one.ready and one.key not in self._watched:
                groups.setdefault(one.key, []).append(one)
        return list(groups.values())

    async def _watch(self, group: list[Resident]) -> None:
        """Look at the workers of a version in turn, until one goes: the others serve meanwhile."""
        key = group[0].key
        self._watched.add(key)
        try:
            for one in group:
                if one.ready:
                    await self._look_at(one)
                if not one.ready:
                    return
            # By the worker's own measure: one that is busy answers late, and is not slow for that.
            longest_s = max(one.replica.example_s for one in group)
            rest_s = min(_REST_RATIO * longest_s, _LONGEST_REST_S)
            if rest_s > self._interval_s:
                await asyncio.sleep(rest_s)
        except Exception:  # noqa: BLE001  # one odd worker must not end the watch over the others
            _log.exception("supervision.failed", replica=str(key))
        finally:
            self._watched.discard(key)

    async def _look_at(self, resident: Resident) -> None:
        """Probe a worker, and once more soon after if its example goes wrong: then it goes."""
        if not await self._is_wrong(resident):
            return
        await asyncio.sleep(min(_SECOND_LOOK_S, self._interval_s))
        if not (wrong := await self._is_wrong(resident)):
            return
        siblings = [one for one in self._residents.residents() if one.key == resident.key]
        troubled = self._residents.track_record.trouble(resident.key) is not None
        if resident.ready and may_go(resident, siblings, troubled=troubled):
            told = f"it answered its own example wrongly, twice: {wrong}"
            self._residents.replace(resident, told)

    async def _is_wrong(self, resident: Resident) -> str:
        """Probe a worker; return what it says is wrong with its example; empty: nothing is.

        One that does not answer at all is ended here, unless it is busy.
        """
        replica = resident.replica
        own_s = self._versions.timeout_s(resident.key) or 0.0
        timeout_s = max(own_s, self._request_timeout_s) + self._stuck_grace_s
        try:
            alive = await replica.probe(timeout_s)
        except TimeoutError:
            if replica.in_flight:
                return ""  # busy, for as long as the model's own time-out allows: `Replica` counts
            _log.warning("probe.failed", replica=str(resident.key), reason="no answer in time")
            replica.kill(f"it did not answer a probe within {timeout_s:g} s")
            return ""
        except NotDeliveredError:
            return ""
        except Exception:  # noqa: BLE001  # one odd worker must not end the watch over the others
            _log.exception("probe.failed", replica=str(resident.key))
            replica.kill("its probe failed in the gateway")
            return ""
        self._residents.measured(resident, alive.private_bytes)
        if alive.example_ok:
            return ""
        _log.warning("probe.failed", replica=str(resident.key), reason=alive.message)
        return alive.message or "it does not say what"


def may_go(wrong: Resident, siblings: Sequence[Resident], *, troubled: bool) -> bool:
    """Whether a wrong worker may be replaced now. Pure.

    Not while another one of its version comes up or goes, nor while the version is left alone since
    its workers do not come up, or not for long: then nobody would take its place soon. A sole one
    may: whether another one comes up is seen only when it is tried.
    """
    return not troubled and all(one.ready for one in siblings if one is not wrong)
