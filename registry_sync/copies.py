"""This node's copies that were altered or lost after they were verified: dropped, to come anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from gateway.control_contract import DamagedCopy
from registry_sync.arrival import Arrival
from registry_sync.artifact_store import ArtifactStore
from registry_sync.aspired import Aspired
from registry_sync.backoff import Backoff
from registry_sync.errors import StoreError
from registry_sync.records import LedgerView
from registry_sync.standing import admissible_digest, find, is_quarantined
from registry_sync.threads import Threads

_log = structlog.get_logger("registry_sync.copies")


class Copies:
    """Drops copies that no worker can be started on. Event loop only.

    That says nothing of the publisher's bytes: they are fetched again, and judged as ever.
    """

    def __init__(
        self,
        *,
        arrival: Arrival,
        store: ArtifactStore,
        threads: Threads,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        """Store. ``clock`` gives epoch seconds, ``jitter`` numbers from 0 to 1."""
        self._arrival = arrival
        self._store = store
        self._threads = threads
        self._backoff = Backoff(clock=clock, jitter=jitter)

    async def drop(self, digest: str) -> None:
        """Drop a copy; one that is not there is fine.

        Raises:
            StoreError: The disk refused; the copy counts as here still.
        """
        stored = self._arrival.artifacts.pop(digest, None)
        if stored is None:
            return  # two have told of it: the next one may be here already
        try:
            await self._threads.ledger(self._store.remove, digest)
        except StoreError:
            self._arrival.artifacts[digest] = stored
            raise

    async def heal(
        self, damaged: Sequence[DamagedCopy], aspired: Aspired, ledger: LedgerView
    ) -> None:
        """Drop what a worker has found damaged since it came here, if it can be fetched again.

        A copy that is damaged again and again is dropped less and less often.
        """
        self._backoff.keep_only(("copy", one.digest) for one in damaged)
        for one in damaged:
            stored = self._arrival.artifacts.get(one.digest)
            if stored is None or one.at <= stored.stored_at:
                continue
            subject = ("copy", one.digest)
            if self._backoff.waits(subject) or not _comes_again(one, aspired, ledger):
                continue
            self._backoff.failed(subject, one.reason)
            try:
                await self.drop(one.digest)
            except StoreError as error:
                _log.warning("copy.kept", digest=one.digest, reason=error.reason)
                continue
            _log.warning(
                "copy.dropped",
                model=one.model,
                version=one.version,
                digest=one.digest,
                reason=one.reason,
            )


def _comes_again(one: DamagedCopy, aspired: Aspired, ledger: LedgerView) -> bool:
    """Whether the registry lists a version that ought to have these bytes."""
    listed = find(aspired, one.model, one.version)
    if listed is None or is_quarantined(listed, ledger):
        return False
    return admissible_digest(listed, ledger) == one.digest
