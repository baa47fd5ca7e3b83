"""The newest state of the gateway, from one long poll after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Set as AbstractSet
from typing import Protocol, TypeVar

import structlog
from cachetools import LRUCache

from gateway.contract import (
    AbandonedVersion,
    Ack,
    ActiveAlias,
    AliasRef,
    ArtifactRef,
    AwaitedVersion,
    NodeState,
    RefusedDigest,
    StageOutcome,
    StageRequest,
)
from registry_sync.errors import RolloutRejectedError
from registry_sync.reconcile.gateway.target import ServingTarget, TargetUnreachableError

_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_REMEMBERED_PROOFS = 16_384
_PRESENT = (0, "")
"""A number and a boot that no state has: a gateway that is asked for what came after them answers
at once, with its whole state."""
_log = structlog.get_logger("registry_sync.reconcile.gateway.observation")

Changed = AbstractSet[str] | None
"""The models that changed, or None if any may have changed."""


class _OfModel(Protocol):
    @property
    def model(self) -> str: ...


_T = TypeVar("_T", bound=_OfModel)


class Observation:
    """The newest state of the gateway, its successful stages, and the stages that are awaited.

    Event loop only. A question about one model costs no more with many models. ``on_news`` is
    called after each change, with the models that changed.

    Attributes:
        unreachable: Why the gateway does not answer, or None if it does.
        generation: Of the newest route table that the gateway reported.
        proved: Ids of the stages that succeeded since the gateway started.
    """

    def __init__(self, target: ServingTarget, *, on_news: Callable[[Changed], None]) -> None:
        self._target = target
        self._on_news = on_news
        self.unreachable: str | None = "the gateway has not been asked yet"
        self.proved = LRUCache[ArtifactRef, str](_REMEMBERED_PROOFS)
        self.generation = 0
        self._state: NodeState | None = None
        self._active: dict[str, dict[str, ActiveAlias]] = {}
        self._standbys: Mapping[str, list[StageRequest]] = {}
        self._wanted: dict[str, list[AwaitedVersion]] = {}
        self._resident: list[str] = []
        self._refused_digests: Mapping[str, list[RefusedDigest]] = {}
        self._whole: NodeState | None = None
        # Aliases to the generation of their acknowledgement, until a state is as new.
        self._acknowledged: dict[AliasRef, int] = {}
        self._dismissed: set[str] = set()
        self._waiting: dict[str, asyncio.Future[StageOutcome]] = {}
        self._asking: asyncio.Future[NodeState] | None = None
        self._suspicion: str | None = None

    # --- what is known ----------------------------------------------------------------------------

    @property
    def heard(self) -> NodeState | None:
        """The newest answer, which may name a few aliases only, or None before the first."""
        return self._state

    @property
    def node(self) -> NodeState | None:
        """The newest state as a whole, or None before the first answer.

        Its residents are those of the last whole state: differences do not name them.
        """
        if self._whole is None and self._state is not None:
            self._whole = self._state.model_copy(
                update={
                    "generation": self.generation,
                    "since": None,
                    "active": _all(one.values() for one in self._active.values()),
                    "inactive": [],
                    "wanted": _all(self._wanted.values()),
                    "unwanted": [],
                    "resident": self._resident,
                    "standbys": _all(self._standbys.values()),
                    "refused_digests": _all(self._refused_digests.values()),
                }
            )
        return self._whole

    def models(self) -> AbstractSet[str]:
        """Return the models that the newest state names."""
        return {*self._active, *self._standbys, *self._wanted, *self._refused_digests}

    def serves(self) -> AbstractSet[str]:
        """Return the models that have an active alias."""
        return self._active.keys()

    def active_of(self, model: str) -> Mapping[str, ActiveAlias]:
        """Return the active aliases of a model, by alias."""
        return self._active.get(model, {})

    def state_of(self, model: str) -> NodeState | None:
        """Return the part of the newest state that is about one model, or None."""
        if self._state is None:
            return None
        return self._state.model_copy(
            update={
                "generation": self.generation,
                "active": list(self._active.get(model, {}).values()),
                "standbys": self._standbys.get(model, []),
                "wanted": self._wanted.get(model, []),
                "unwanted": [],
                "refused_digests": self._refused_digests.get(model, []),
            }
        )

    # --- asking -----------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Observe without a pause while the gateway answers; never returns.

        After a failed call, the next one asks for the whole state: a gateway that was frozen and
        goes on may have no next change to report.
        """
        after, of = _PRESENT
        pause_s = _SHORTEST_PAUSE_S
        while True:
            try:
                state = await self._ask(after, of)
            except Exception as error:  # noqa: BLE001  # the next call may succeed
                self._lost(_reason(error))
                after, of = _PRESENT
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                continue
            after, of, pause_s = state.seq, state.boot_id, _SHORTEST_PAUSE_S
            self._take(state)

    async def _ask(self, after: int, of: str) -> NodeState:
        """Ask for news, until another call finds that the gateway is gone."""
        self._asking = asyncio.ensure_future(self._target.observe(after, of))
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
        """End the long poll, which a dead gateway may keep open: another call found it gone."""
        if self._asking is not None and not self._asking.done():
            self._suspicion = reason
            self._asking.cancel()

    def _lost(self, reason: str) -> None:
        if self.unreachable != reason:
            _log.warning("observation.failed", reason=reason)
            self.unreachable = reason
            self._on_news(frozenset())

    # --- taking -----------------------------------------------------------------------------------

    def _take(self, state: NodeState) -> None:
        """Take a state or a difference; a newer acknowledgement stays."""
        before = self._state
        anew = before is None or before.boot_id != state.boot_id
        if anew:
            _log.info("observation.restarted", boot_id=state.boot_id, node_id=state.node_id)
            self._forget_boot()
        changed = self._take_active(state)
        self._dismissed.intersection_update(one.stage_id for one in state.standbys)
        changed |= self._take_lists(state)
        self.generation = max(self.generation, state.generation)
        self._state, self._whole, self.unreachable = state, None, None
        for event in state.events:
            self._ended(event.stage)
            changed.add(event.stage.model)
        self._on_news(None if anew else changed)

    def _take_active(self, state: NodeState) -> set[str]:
        """Take the active aliases; return the models of those that moved."""
        told = {one.alias_ref: one for one in state.active}
        gone = {one.alias_ref for one in state.inactive}
        if state.since is None:
            known = (one.alias_ref for of in self._active.values() for one in of.values())
            gone = {key for key in known if key not in told}
        changed = set()
        for key in (*told, *gone):
            if self._acknowledged.get(key, -1) <= state.generation:
                self._acknowledged.pop(key, None)
                if self._point(key, told.get(key)):
                    changed.add(key.model)
        # A state that is as new as an acknowledgement contains it.
        self._acknowledged = {
            key: at for key, at in self._acknowledged.items() if at > state.generation
        }
        return changed

    def _point(self, key: AliasRef, entry: ActiveAlias | None) -> bool:
        """Point an alias at an entry, or at nothing; return whether that changed it."""
        model, alias = key
        aliases = self._active.get(model, {})
        if aliases.get(alias) == entry:
            return False
        others = {name: one for name, one in aliases.items() if name != alias}
        if entry is not None:
            others[alias] = entry
        if others:
            self._active[model] = others
        else:
            self._active.pop(model, None)
        self._whole = None
        return True

    def _take_lists(self, state: NodeState) -> set[str]:
        """Take standbys, wanted versions, refused digests; return the models that changed."""
        standbys = _by_model(one for one in state.standbys if one.stage_id not in self._dismissed)
        refused = _by_model(state.refused_digests)
        changed = (
            _differing(self._standbys, standbys)
            | self._take_wanted(state)
            | _differing(self._refused_digests, refused)
        )
        self._standbys, self._refused_digests = standbys, refused
        if state.since is None:
            self._resident = list(state.resident)
        before = self._state.damaged if self._state else []
        if state.damaged != before:
            changed |= {one.model for one in (*before, *state.damaged)}
        return changed

    def _take_wanted(self, state: NodeState) -> set[str]:
        """Take the wanted versions; return the models that changed."""
        told = _by_model(state.wanted)
        if state.since is None:
            changed = _differing(self._wanted, told)
            self._wanted = told
            return changed
        named = {*map(_identity, state.wanted), *map(_identity, state.unwanted)}
        changed = set()
        for model in {model for model, _, _ in named}:
            before = self._wanted.pop(model, [])
            after = [one for one in before if _identity(one) not in named] + told.get(model, [])
            if after:
                self._wanted[model] = after
            if after != before:
                changed.add(model)
        return changed

    def _forget_boot(self) -> None:
        """Forget proofs and fail awaited stages: neither outlives the gateway."""
        self.generation = 0
        self.proved.clear()
        self._acknowledged.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    TargetUnreachableError("the gateway was started anew during the stage")
                )

    def _ended(self, outcome: StageOutcome) -> None:
        if outcome.failure is None:
            self.proved[outcome.ref] = outcome.stage_id
        future = self._waiting.get(outcome.stage_id)
        if future is not None and not future.done():
            future.set_result(outcome)

    # --- stages that are waited for ---------------------------------------------------------------

    def expect(self, stage_id: str) -> asyncio.Future[StageOutcome]:
        """Return the future outcome of a stage that is about to be requested."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[stage_id] = future
        future.add_done_callback(lambda done: self._forget_stage(stage_id, done))
        return future

    def _forget_stage(self, stage_id: str, done: asyncio.Future[StageOutcome]) -> None:
        self._waiting.pop(stage_id, None)
        if not done.cancelled():
            done.exception()  # retrieved: the caller may have given up

    # --- acknowledgements -------------------------------------------------------------------------

    def activated(self, alias: ActiveAlias, ack: Ack, stage_id: str) -> None:
        """Point an alias at an acknowledged version, before the next long poll answers."""
        self.dismissed(stage_id)
        self._acknowledge(alias.alias_ref, alias, ack.generation)

    def retired(self, alias: AliasRef, generation: int) -> None:
        """Remove an alias whose retirement was acknowledged."""
        self._acknowledge(alias, None, generation)

    def _acknowledge(self, key: AliasRef, entry: ActiveAlias | None, generation: int) -> None:
        if self._state is None:
            return
        if generation > self._state.generation:
            self._acknowledged[key] = generation
        self.generation = max(generation, self.generation)
        self._point(key, entry)

    def dismissed(self, stage_id: str) -> None:
        """Remove a standby that has ended; a state on its way may still name it."""
        if self._state is None:
            return
        self._dismissed.add(stage_id)
        standbys = _all(self._standbys.values())
        self._standbys = _by_model(one for one in standbys if one.stage_id not in self._dismissed)
        self._whole = None

    def allowed(self, model: str, alias: str, digest: str) -> None:
        """Remove a refused digest that the gateway allows again."""
        kept = [
            one
            for one in self._refused_digests.get(model, [])
            if (one.alias, one.digest) != (alias, digest)
        ]
        self._refused_digests = {**self._refused_digests, model: kept}
        self._whole = None


def _reason(error: Exception) -> str:
    if isinstance(error, TargetUnreachableError | RolloutRejectedError):
        return error.reason
    _log.error("observation.failed", exc_info=error)
    return f"the gateway cannot be asked: {type(error).__name__}"


def _all(found: Iterable[Iterable[_T]]) -> list[_T]:
    return [one for some in found for one in some]


def _by_model(found: Iterable[_T]) -> dict[str, list[_T]]:
    by_model: dict[str, list[_T]] = {}
    for one in found:
        by_model.setdefault(one.model, []).append(one)
    return by_model


def _identity(one: AwaitedVersion | AbandonedVersion) -> tuple[str, int, str | None]:
    return one.model, one.version, one.alias


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """Return the models whose values differ."""
    return {model for model in {*before, *after} if before.get(model) != after.get(model)}
