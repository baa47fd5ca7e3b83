"""Standbys: versions that are loaded and warmed before an alias points at them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any, get_args

import structlog
from cachetools import LRUCache

from gateway.contract import (
    LATEST,
    Ack,
    ActivateRequest,
    ActiveAlias,
    ArtifactRef,
    StageFailure,
    StageOutcome,
    StageRequest,
)
from gateway.errors import GatewayError, LoadError, RolloutRefusedError
from gateway.routing import Node
from gateway.serving import ResidentSet
from gateway.settings import STANDBY_TIMEOUT_S
from gateway.worker.protocol import messages

_REMEMBERED_STAGES = 16_384
_FAILURES = frozenset(get_args(StageFailure))
_log = structlog.get_logger("gateway.rollout.standbys")


class Standbys:
    """Starts standbys and remembers their outcomes. Event loop only.

    A stage waits up to ``stage_wait_s`` seconds for room and its loads.
    """

    def __init__(self, node: Node, residents: ResidentSet, *, stage_wait_s: float) -> None:
        self._node = node
        self._residents = residents
        self._stage_wait_s = stage_wait_s
        self._stages: dict[str, asyncio.Task[None]] = {}
        self._standbys: dict[str, tuple[StageRequest, asyncio.TimerHandle]] = {}
        self._outcomes: LRUCache[str, StageOutcome] = LRUCache(_REMEMBERED_STAGES)

    def start(self, request: StageRequest) -> Ack:
        """Begin a stage. Idempotent by its id."""
        if request.stage_id not in self._stages and request.stage_id not in self._outcomes:
            task = asyncio.get_running_loop().create_task(self._stage(request))
            self._stages[request.stage_id] = task
            task.add_done_callback(lambda _: self._stages.pop(request.stage_id, None))
        return Ack(generation=self._node.table.generation)

    def requests(self) -> list[StageRequest]:
        """Return the requests whose standbys are ready."""
        return [request for request, _ in self._standbys.values()]

    def was_warmed(self, request: ActivateRequest) -> bool:
        """Return whether this gateway has loaded and warmed the bytes of a request."""
        if self._residents.is_ready(request.ref):
            return True
        outcome = self._outcomes.get(request.stage_id or "")
        return outcome is not None and outcome.failure is None and outcome.ref == request.ref

    def dismiss(self, stage_id: str) -> None:
        """End a standby that was activated, or whose time is over."""
        if stage_id in self._standbys:
            _, timer = self._standbys.pop(stage_id)
            timer.cancel()
            self._residents.unstage(stage_id)
            self._node.changed()

    @contextlib.asynccontextmanager
    async def warmed(self, back: ArtifactRef, bad: ActiveAlias) -> AsyncIterator[None]:
        """Keep a worker of the previous version ready for the block, if there is room for one.

        It starts beside the promoted version, unless the policy unloads that one first. Without
        room the block runs too: a cold start is better than the promoted version.

        Raises:
            RolloutRefusedError: The version cannot be loaded.
        """
        stage_id = f"rollback-{uuid.uuid4().hex}"
        try:
            await self._residents.stage(
                back,
                stage_id,
                replaces=bad.ref,
                swap=self._swap(back, bad.alias, bad.ref),
                replicas=1,  # enough to begin with; the resident set starts the others later
                wait_s=self._stage_wait_s,
            )
        except LoadError as error:
            if error.failure != "no_room":
                raise RolloutRefusedError(
                    "not_staged", f"{back} cannot be loaded: {error.message}"
                ) from error
            _log.warning("rollback.cold", replica=str(back), reason=error.message)
        try:
            yield
        finally:
            self._residents.unstage(stage_id)

    async def close(self) -> None:
        """Stop the stages that are under way, and every timer."""
        for _, timer in self._standbys.values():
            timer.cancel()
        for task in list(self._stages.values()):
            task.cancel()
        await asyncio.gather(*self._stages.values(), return_exceptions=True)

    # --- one stage --------------------------------------------------------------------------------

    async def _stage(self, request: StageRequest) -> None:
        """Start a standby, and report the outcome, even after an unforeseen error."""
        log = _log.bind(model=request.model, version=request.version, stage_id=request.stage_id)
        try:
            loaded = await self._bring_up(request, log)
        except LoadError as error:
            log.warning("stage.failed", failure=error.failure, reason=error.message)
            failure = error.failure if error.failure in _FAILURES else "load_failed"
            self._finish(request, failure=failure, message=error.message)
        except Exception as error:
            log.exception("stage.failed", failure="load_failed")
            self._residents.unstage(request.stage_id)
            self._finish(request, failure="internal_error", message=f"internal error: {error!r}")
        else:
            log.info("stage.completed", durations_s=loaded.durations_s, warm_up=loaded.warm_up)
            self._finish(request, durations_s=loaded.durations_s)

    async def _bring_up(
        self, request: StageRequest, log: structlog.stdlib.BoundLogger
    ) -> messages.Loaded:
        """Load and warm a version; it becomes a standby, or the least recently used resident."""
        key = request.ref
        policy = self._node.table.policy_of(key)
        replaced = self._replaced(request)
        swap = self._swap(key, request.alias, replaced)
        log.info("stage.started", replaces=request.replaces, swap=swap)
        loaded = await self._residents.stage(
            key,
            request.stage_id,
            replaces=replaced,
            swap=swap,
            replicas=(policy.replicas or 1) if request.keep else 1,
            wait_s=self._stage_wait_s,
        )
        if request.keep:
            self._stand_by(request)
        else:
            self._residents.unstage(request.stage_id)
        return loaded

    def _replaced(self, request: StageRequest) -> ArtifactRef | None:
        """Return the version to replace, with the digest that its alias points at."""
        if request.replaces is None:
            return None
        for alias, active in self._node.table.active_of(request.model).items():
            is_it = request.alias in (None, alias) and active.version == request.replaces
            if is_it and active.ref != request.ref:
                return active.ref
        return None

    def _swap(self, key: ArtifactRef, alias: str | None, replaced: ArtifactRef | None) -> str:
        """Return the swap of a policy, or ``blue_green`` if another alias keeps the old version.

        ``latest`` does not count as such: a promotion or a rollback is worth more.
        """
        table = self._node.table
        aspired: dict[str, int] = {}
        with contextlib.suppress(GatewayError):  # the model is not listed any more
            aspired = table.model(key.model).aliases
        for other, active in table.active_of(key.model).items():
            stays = active.ref == replaced and aspired.get(other) != key.version
            if stays and other not in (alias, LATEST):
                return "blue_green"
        return table.policy_of(key).swap or "blue_green"

    def _stand_by(self, request: StageRequest) -> None:
        timer = asyncio.get_running_loop().call_later(
            STANDBY_TIMEOUT_S, self.dismiss, request.stage_id
        )
        self._standbys[request.stage_id] = request, timer

    def _finish(self, request: StageRequest, **members: Any) -> None:
        outcome = StageOutcome(stage_id=request.stage_id, **request.ref._asdict(), **members)
        self._outcomes[request.stage_id] = outcome
        self._node.report(outcome)
