"""Sends the catalogue to the gateway whenever the gateway lacks a change."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from gateway.contract import Catalogue, CatalogueModel, ModelChange, NodeState, UnchangedCatalogue
from gateway.system.logs import for_public
from registry_sync.errors import RolloutRejectedError
from registry_sync.planning import for_callers
from registry_sync.reconcile.gateway.target import ServingTarget

_LISTED_AT_STEP_S = 1.0
_FEW_CHANGES = 64
"""Changed models that are sent one by one, or a quarter of all if that is more."""
_log = structlog.get_logger("registry_sync.reconcile.gateway.announcer")


@dataclass(frozen=True, slots=True)
class SentModel:
    """The state of the registry that is sent with its models.

    Attributes:
        listed_at: Epoch seconds of its newest answer, or None before the first.
        source_error: Why it could not be listed, or None if it could.
        complete: Whether it was listed, now or before, so that missing models are gone.
    """

    listed_at: float | None
    source_error: str | None
    complete: bool


class Announcer:
    """Sends the whole catalogue to a gateway that lacks it, else the models that changed.

    Event loop only; one `publish` at a time. All callers can read the catalogue, so it names no
    hosts, buckets or paths. ``writer`` is this process's boot id.

    Attributes:
        models: The newest description of each model, by name, as operators read it.
    """

    def __init__(self, target: ServingTarget, *, writer: str) -> None:
        self._target = target
        self._writer = writer
        self._epoch = 0
        self._revision = 0
        self._sent: SentModel | None = None
        self._sent_to: str | None = None
        self._offered: dict[str, CatalogueModel] = {}
        self._unsent: set[str] = set()
        self.models: dict[str, CatalogueModel] = {}
        self._shown: dict[str, CatalogueModel] = {}

    def describe(self, name: str, model: CatalogueModel | None) -> None:
        """Set a model's description, or remove it if ``model`` is None; `publish` sends it."""
        if self.models.get(name) == model:
            return
        if model is None:
            self.models.pop(name, None)
            self._shown.pop(name, None)
        else:
            self.models[name] = model
            self._shown[name] = for_callers(model)
        self._unsent.add(name)

    async def publish(self, node: NodeState, listed: SentModel) -> None:
        """Send the changes that the node lacks; after a refusal, the next call sends all.

        Raises:
            TargetUnreachableError: The gateway does not answer.
        """
        try:
            if not self._must_send_all(node, listed) and await self._send_news(listed):
                return
            await self._send_all(node, listed)
        except RolloutRejectedError as error:
            _log.warning("catalogue.refused", reason=error.reason)
            self._sent = None

    async def _send_news(self, listed: SentModel) -> bool:
        """Send the changes; return False if the gateway requests the whole catalogue."""
        try:
            await self._send_changes()
            if self._is_listed_anew(listed):
                await self._target.keep(
                    UnchangedCatalogue(
                        writer=self._writer,
                        epoch=self._epoch,
                        listed_at=listed.listed_at,
                        source_error=_for_public(listed.source_error),
                    )
                )
                self._sent = listed
        except RolloutRejectedError as error:
            _log.info("catalogue.requested", reason=error.reason)
            return False
        return True

    def _must_send_all(self, node: NodeState, listed: SentModel) -> bool:
        sent = self._sent
        if sent is None or sent.complete != listed.complete or self._sent_to != node.boot_id:
            return True
        if node.catalogue_writer not in (None, self._writer):
            return True
        if not self._unsent:
            return False
        many = max(_FEW_CHANGES, len(self.models) // 4)
        return not listed.complete or len(self._unsent) > many

    async def _send_all(self, node: NodeState, listed: SentModel) -> None:
        self._epoch += 1
        self._revision = 0
        models, shown, unsent = dict(self.models), dict(self._shown), set(self._unsent)
        await self._target.publish(
            Catalogue(
                writer=self._writer,
                epoch=self._epoch,
                models=[shown[name] for name in sorted(shown)],
                listed_at=listed.listed_at,
                source_error=_for_public(listed.source_error),
                complete=listed.complete,
            )
        )
        _log.debug("catalogue.completed", epoch=self._epoch, models=len(models))
        self._offered, self._sent, self._sent_to = models, listed, node.boot_id
        self._unsent = {one for one in unsent if self.models.get(one) is not models.get(one)}

    async def _send_changes(self) -> None:
        for name in sorted(self._unsent):
            model = self.models.get(name)
            self._revision += 1
            await self._target.change(
                ModelChange(
                    writer=self._writer,
                    epoch=self._epoch,
                    revision=self._revision,
                    name=name,
                    model=self._shown.get(name),
                )
            )
            if model is None:
                self._offered.pop(name, None)
            else:
                self._offered[name] = model
            if self.models.get(name) is model:
                self._unsent.discard(name)

    def offers(self, digest: str) -> bool:
        """Whether the gateway's catalogue may still have an artifact."""
        if self._sent is None or not self._sent.complete:
            return True
        unsent = (self.models[name] for name in self._unsent & self.models.keys())
        models = (*self._offered.values(), *unsent)
        return any(one.digest == digest for model in models for one in model.versions)

    def _is_listed_anew(self, listed: SentModel) -> bool:
        sent = self._sent
        if sent is None:
            return True
        fresh = (listed.listed_at or 0.0) - (sent.listed_at or 0.0) >= _LISTED_AT_STEP_S
        return fresh or sent.source_error != listed.source_error


def _for_public(reason: str | None) -> str | None:
    return None if reason is None else for_public(reason)
