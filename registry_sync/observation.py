"""What the gateway says of itself: one long poll after the other, for ever."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import structlog

from gateway.control_contract import ActivateAck, ActiveAlias, NodeState, StageOutcome
from registry_sync.errors import RolloutRejectedError
from registry_sync.serving_target import ServingTarget, TargetUnreachableError

_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_REMEMBERED_PROOFS = 1024
_log = structlog.get_logger("registry_sync.observation")

Proof = tuple[str, int, str]
"""Model, version and digest of a stage that went well."""


class Observation:
    """The newest `NodeState`, the stages that went well, and who waits for one. Event loop only.

    Attributes:
        node: What the gateway said last; None: it has never answered.
        unreachable: Why it does not answer now; None: it does.
        proved: Stages that went well since the gateway started, by what they proved.
    """

    def __init__(self, target: ServingTarget, *, on_news: Callable[[], None]) -> None:
        """Store. ``on_news`` is called after every change of what is known."""
        self._target = target
        self._on_news = on_news
        self.node: NodeState | None = None
        self.unreachable: str | None = "the gateway has not been asked yet"
        self.proved: OrderedDict[Proof, str] = OrderedDict()
        self._dismissed: set[str] = set()
        self._waiting: dict[str, asyncio.Future[StageOutcome]] = {}
        self._asking: asyncio.Future[NodeState] | None = None
        self._suspicion: str | None = None

    async def follow(self) -> None:
        """Observe without a pause while the gateway answers; never returns."""
        after = 0
        pause_s = _SHORTEST_PAUSE_S
        while True:
            try:
                state = await self._ask(after)
            except (TargetUnreachableError, RolloutRejectedError) as error:
                self._lost(error.reason)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                continue
            after, pause_s = state.seq, _SHORTEST_PAUSE_S
            self._take(state)

    async def _ask(self, after: int) -> NodeState:
        """Ask for news, unless another call finds out meanwhile that nobody is there."""
        self._asking = asyncio.ensure_future(self._target.observe(after))
        try:
            return await self._asking
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._suspicion is None or (task is not None and task.cancelling()):
                raise
            raise TargetUnreachableError(self._suspicion) from None
        finally:
            self._asking.cancel()
            self._asking = self._suspicion = None

    def suspect(self, reason: str) -> None:
        """Another call found the gateway gone: a dead one may keep a long poll open for long."""
        if self._asking is not None and not self._asking.done():
            self._suspicion = reason
            self._asking.cancel()

    def _lost(self, reason: str) -> None:
        if self.unreachable != reason:
            _log.warning("observe.failed", reason=reason)
            self.unreachable = reason
            self._on_news()

    def _take(self, state: NodeState) -> None:
        """Take a state, unless an acknowledgement has told something newer."""
        before = self.node
        if before is None or before.boot_id != state.boot_id:
            _log.info("observe.gateway_started", boot_id=state.boot_id, node_id=state.node_id)
            self._forget_boot()
        elif state.generation < before.generation:
            state = state.model_copy(
                update={"active": before.active, "generation": before.generation}
            )
        self._dismissed.intersection_update(one.stage_id for one in state.standbys)
        self.node, self.unreachable = self._without_dismissed(state), None
        for event in state.events:
            self._ended(event.stage)
        self._on_news()

    def _forget_boot(self) -> None:
        """Stages do not outlive the gateway that made them."""
        self.proved.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    TargetUnreachableError("the gateway was started anew during the stage")
                )

    def _ended(self, outcome: StageOutcome) -> None:
        proof = (outcome.model, outcome.version, outcome.digest)
        if outcome.failure is None:
            self.proved[proof] = outcome.stage_id
            self.proved.move_to_end(proof)
            while len(self.proved) > _REMEMBERED_PROOFS:
                self.proved.popitem(last=False)
        future = self._waiting.get(outcome.stage_id)
        if future is not None and not future.done():
            future.set_result(outcome)

    def expect(self, stage_id: str) -> asyncio.Future[StageOutcome]:
        """Return the future outcome of a stage that is about to be asked for."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[stage_id] = future
        future.add_done_callback(lambda done: self._forget_stage(stage_id, done))
        return future

    def _forget_stage(self, stage_id: str, done: asyncio.Future[StageOutcome]) -> None:
        self._waiting.pop(stage_id, None)
        if not done.cancelled():
            done.exception()  # seen: whoever asked may have given up

    def disprove(self, proof: Proof) -> None:
        """The gateway no longer knows this stage."""
        self.proved.pop(proof, None)

    def activated(self, alias: ActiveAlias, ack: ActivateAck, stage_id: str) -> None:
        """Know at once what was acknowledged, before the next long poll tells."""
        self.dismissed(stage_id)
        if self.node is None:
            return
        others = [
            one for one in self.node.active if (one.model, one.alias) != (alias.model, alias.alias)
        ]
        self.node = self.node.model_copy(
            update={
                "active": [*others, alias],
                "generation": max(ack.generation, self.node.generation),
            }
        )

    def dismissed(self, stage_id: str) -> None:
        """Know at once that a standby is none any more; a state on its way may still name it."""
        if self.node is None:
            return
        self._dismissed.add(stage_id)
        self.node = self._without_dismissed(self.node)

    def _without_dismissed(self, state: NodeState) -> NodeState:
        if not self._dismissed:
            return state
        standbys = [one for one in state.standbys if one.stage_id not in self._dismissed]
        return state.model_copy(update={"standbys": standbys})

    def released(self, model: str, alias: str, digest: str) -> None:
        """Know at once that the gateway holds an alias from these bytes no more."""
        if self.node is None:
            return
        gone = (model, alias, digest)
        kept = [one for one in self.node.holds if (one.model, one.alias, one.digest) != gone]
        self.node = self.node.model_copy(update={"holds": kept})

    def retired(self, model: str, alias: str, generation: int) -> None:
        """Know at once that an alias is gone."""
        if self.node is None:
            return
        others = [one for one in self.node.active if (one.model, one.alias) != (model, alias)]
        self.node = self.node.model_copy(update={"active": others, "generation": generation})
