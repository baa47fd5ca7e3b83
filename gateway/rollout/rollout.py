"""The way of a change on this node: stage → activate → roll back → retire; and its state.

The control plane proposes a change. This node acknowledges it, or refuses it with a reason and
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from gateway.contract import (
    OBSERVE_TIMEOUT_S,
    Ack,
    ActivateRequest,
    ActiveAlias,
    AliasBody,
    AliasRef,
    AllowRequest,
    ArtifactRef,
    EvictionCost,
    NodeState,
    RefusedDigest,
    Residency,
    RetireRequest,
)
from gateway.errors import RolloutRefusedError
from gateway.observability import Telemetry
from gateway.rollout.catalogue import CatalogueChanges
from gateway.rollout.commits import Commits
from gateway.rollout.standbys import Standbys
from gateway.routing import Node, RouteTable, TableFile
from gateway.serving import ResidentSet

_log = structlog.get_logger("gateway.rollout")


class Rollout:
    """Moves aliases on this node. Event loop only.

    Attributes:
        catalogue: The changes of the catalogue.
        standbys: The standbys.
    """

    def __init__(
        self,
        *,
        node: Node,
        residents: ResidentSet,
        table_file: TableFile,
        telemetry: Telemetry,
        stage_wait_s: float,
    ) -> None:
        self._node = node
        self._residents = residents
        self._table_file = table_file
        self._telemetry = telemetry
        self._commits = Commits(node, table_file, telemetry)
        self.catalogue = CatalogueChanges(
            node, residents, table_file, telemetry, self._commits.lock
        )
        self.standbys = Standbys(node, residents, stage_wait_s=stage_wait_s)

    async def activate(self, request: ActivateRequest) -> Ack:
        """Point an alias at a version, in one replacement of the table.

        Raises:
            RolloutRefusedError: The activation is not admissible; nothing has changed.
        """
        key = request.alias_ref

        def decide(table: RouteTable) -> RouteTable:
            present = table.active.get(key)
            if present and present.ref == request.ref:
                # A repeated request: the first acknowledgement may have been lost.
                return table
            self._admit(table, request)
            entry = ActiveAlias(
                alias=request.alias,
                **request.ref._asdict(),
                since=self._node.clock(),
                previous_version=present.version if present else None,
                previous_digest=present.digest if present else None,
                asked_by=request.asked_by,
            )
            return table.with_active(entry)

        before, after = await self._commits.commit(key, decide)
        if request.stage_id is not None:
            self.standbys.dismiss(request.stage_id)
        active = after.active[key]
        if before.active.get(key) is not active:
            self._telemetry.swaps.labels(*key).inc()
            _log.info(
                "activation.completed",
                model=request.model,
                alias=request.alias,
                version=request.version,
                previous=active.previous_version,
                generation=after.generation,
                asked_by=request.asked_by,
            )
        return Ack(generation=after.generation)

    def _admit(self, table: RouteTable, request: ActivateRequest) -> None:
        """Refuse an activation that is not admissible."""
        found, expected = table.active.get(request.alias_ref), request.if_active
        meant = (found.version, found.digest) if found else (None, None)
        if meant != (expected.version, expected.digest):
            raise RolloutRefusedError(
                "generation_mismatch",
                f"alias {request.alias!r} of model {request.model!r} points at version "
                f"{meant[0]}, not {expected.version}",
            )
        refused = table.refused_digest(request.alias_ref, request.digest)
        if refused is not None:
            raise RolloutRefusedError("digest_refused", refused.reason)
        if not self.standbys.was_warmed(request):
            raise RolloutRefusedError(
                "not_staged",
                f"version {request.version} was not staged and warmed by this gateway with "
                f"digest {request.digest}",
            )

    async def retire(self, request: RetireRequest) -> Ack:
        """Remove an alias or a standby, if it is there.

        Raises:
            RolloutRefusedError: The table could not be written.
        """
        if request.alias is not None:
            await self._retire_alias(AliasRef(request.model, request.alias))
        if request.stage_id is not None:
            self.standbys.dismiss(request.stage_id)
        return Ack(generation=self._node.table.generation)

    async def _retire_alias(self, key: AliasRef) -> None:
        def decide(table: RouteTable) -> RouteTable:
            return table.without_alias(key) if key in table.active else table

        before, after = await self._commits.commit(key, decide)
        if key in before.active and key not in after.active:
            self._telemetry.forget_alias(*key)
            _log.info("alias.retired", **key._asdict())

    async def roll_back(self, bad: ActiveAlias, reason: str) -> None:
        """Point an alias back at its previous version, and refuse it the present one.

        Both are one replacement of the table. The previous version is warmed first, if there is
        room for it; else its callers wait for its load.

        Args:
            bad: The alias before the rollback.
            reason: The reason, for people.

        Raises:
            RolloutRefusedError: The rollback is not possible; nothing has changed.
        """
        key = bad.alias_ref

        def decide(table: RouteTable) -> RouteTable:
            if table.active.get(key) != bad:
                raise RolloutRefusedError("generation_mismatch", "the alias has moved since")
            return table.rolled_back(*_rolled_back(table, bad, reason, self._node.clock()))

        back = _previous(self._node.table, bad)
        async with self.standbys.warmed(back, bad):
            _, after = await self._commits.commit(key, decide)
        self._telemetry.swaps.labels(*key).inc()
        self._telemetry.rollbacks.labels(*key).inc()
        _log.warning(
            "rollback.completed",
            **key._asdict(),
            version=back.version,
            rejected=bad.version,
            generation=after.generation,
            reason=reason,
        )

    async def allow(self, request: AllowRequest) -> Ack:
        """Let an alias take a refused digest again.

        Raises:
            RolloutRefusedError: The table could not be written.
        """
        key, digest = request.alias_ref, request.digest

        def decide(table: RouteTable) -> RouteTable:
            is_refused = table.refused_digest(key, digest) is not None
            return table.without_refused_digest(key, digest) if is_refused else table

        before, after = await self._commits.commit(key, decide)
        if before is not after:
            _log.info("digest.allowed", **key._asdict())
        return Ack(generation=after.generation)

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        """Return the node's state once its ``seq`` is above ``after``, or after 25 s.

        If ``of`` is the boot id of this start and the changes since ``after`` are known, the state
        is the difference from that.
        """
        node = self._node
        node.listening(+1)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OBSERVE_TIMEOUT_S):
                    # Another number, such as one of another boot, is answered at once.
                    while node.seq == after:
                        await node.next_change()
        finally:
            node.listening(-1)
        active = node.table.active
        moved, wanted = node.moves.after(after), node.wanted_moves.after(after)
        if of != node.boot_id or moved is None or wanted is None:
            moved = wanted = None
        whole = moved is None
        keys = active.keys() if moved is None else moved
        return NodeState(
            node_id=node.node_id,
            boot_id=node.boot_id,
            seq=node.seq,
            generation=node.table.generation,
            catalogue_writer=node.catalogue_writer,
            catalogue_epoch=node.catalogue_epoch,
            since=None if whole else after,
            active=[active[key] for key in keys if key in active],
            inactive=[AliasBody(**key._asdict()) for key in keys if key not in active],
            standbys=self.standbys.requests(),
            wanted=node.wanted(wanted),
            unwanted=[] if wanted is None else node.unwanted_of(wanted),
            resident=sorted(self._residents.digests()) if whole else [],
            residency=self._residency(),
            refused_digests=list(node.table.refused_digests),
            damaged=node.damaged(),
            damaged_files=self._table_file.damaged(),
            libraries=node.libraries,
            events=node.events_after(after),
        )

    def _residency(self) -> Residency:
        limits, residents = self._residents.limits, self._residents.residents()
        return Residency(
            workers=len(residents),
            worker_limit=limits.count,
            memory_bytes=sum(one.bytes for one in residents),
            memory_limit_bytes=limits.bytes,
            eviction_costs=[
                EvictionCost(
                    setting=one.setting, requests=one.requests, longest_wait_s=one.longest_wait_s
                )
                for one in self._residents.eviction_costs.lately()
            ],
        )

    async def close(self) -> None:
        """Stop the stages that are under way, and wait for the last write."""
        await self.standbys.close()
        await self._commits.close()


def _previous(table: RouteTable, bad: ActiveAlias) -> ArtifactRef:
    """Return the previous version of an alias.

    Raises:
        RolloutRefusedError: The alias must not be rolled back to it.
    """
    reason = table.why_no_rollback(bad)
    if reason is not None or bad.previous_ref is None:
        raise RolloutRefusedError("unknown_version", reason or "the alias has no previous version")
    return bad.previous_ref


def _rolled_back(
    table: RouteTable, bad: ActiveAlias, reason: str, now: float
) -> tuple[ActiveAlias, RefusedDigest]:
    """Return the alias after a rollback, and its refused digest."""
    back = _previous(table, bad)
    entry = ActiveAlias(
        alias=bad.alias,
        **back._asdict(),
        since=now,
        previous_version=bad.version,
        previous_digest=bad.digest,
        asked_by="gateway",
    )
    refused = RefusedDigest(
        **bad.alias_ref._asdict(),
        digest=bad.digest,
        reason=f"automatic rollback to version {back.version}: {reason}",
        version=bad.version,
        since=now,
        to_version=back.version,
        to_digest=back.digest,
        generation=table.generation + 1,
    )
    return entry, refused
