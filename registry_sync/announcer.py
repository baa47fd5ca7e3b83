"""Tells the gateway what the registry lists, whenever that is news to it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import structlog

from gateway.control_contract import (
    Catalogue,
    CatalogueModel,
    NodeState,
    UnchangedCatalogue,
)
from registry_sync.aspired import Aspired
from registry_sync.catalogue import Known, describe_models
from registry_sync.errors import RolloutRejectedError
from registry_sync.records import LedgerView
from registry_sync.serving_target import ServingTarget

_LISTED_AT_STEP_S = 1.0
_log = structlog.get_logger("registry_sync.announcer")


class Announcer:
    """Sends the catalogue. Event loop only; one `publish` at a time.

    Attributes:
        models: What was described last.
    """

    def __init__(self, target: ServingTarget, *, writer: str) -> None:
        """Store. ``writer`` is this process's boot id."""
        self._target = target
        self._writer = writer
        self._epoch = 0
        self._sent: Catalogue | None = None
        self._sent_to: str | None = None
        self._described_from: tuple[Any, ...] = ()
        self.models: list[CatalogueModel] = []

    async def publish(
        self,
        node: NodeState,
        aspired: Aspired,
        ledger: LedgerView,
        known: Known,
        *,
        listed_at: float | None,
        source_error: str | None,
        remembered: AbstractSet[str] | None = None,
    ) -> None:
        """Send the snapshot if the node lacks it. One that is refused is sent again.

        ``remembered``: models of it that were not listed: it is not complete, and tells of no
        model that it is gone; None: it is complete.

        Raises:
            TargetUnreachableError: The gateway does not answer.
        """
        self._describe(aspired, ledger, known, remembered or frozenset())
        complete = remembered is None
        whole = not self._has(node, complete=complete)
        if not whole and not self._is_listed_anew(listed_at, source_error):
            return
        if whole:
            self._epoch += 1
        catalogue = Catalogue(
            writer=self._writer,
            epoch=self._epoch,
            models=self.models,
            listed_at=listed_at,
            source_error=source_error,
            complete=complete,
        )
        try:
            await self._send(catalogue, whole=whole)
        except RolloutRejectedError as error:
            _log.warning("catalogue.refused", reason=error.reason)
            self._sent = None
            return
        _log.debug("catalogue.complete", epoch=self._epoch, models=len(self.models), whole=whole)
        self._sent = catalogue
        self._sent_to = node.boot_id

    async def _send(self, catalogue: Catalogue, *, whole: bool) -> None:
        """Send a snapshot, or only when it was listed: its models are there already."""
        if whole:
            await self._target.publish(catalogue)
            return
        await self._target.keep(
            UnchangedCatalogue(
                writer=catalogue.writer,
                epoch=catalogue.epoch,
                listed_at=catalogue.listed_at,
                source_error=catalogue.source_error,
            )
        )

    def offers(self, digest: str) -> bool:
        """Whether the node may still believe that this artifact is here."""
        if self._sent is None or not self._sent.complete:
            return True
        return any(one.digest == digest for model in self._sent.models for one in model.versions)

    def _describe(
        self,
        aspired: Aspired,
        ledger: LedgerView,
        known: Known,
        remembered: AbstractSet[str],
    ) -> None:
        """Describe the models again if anything that they are made of is another object."""
        parts = (
            *(aspired.models, ledger, known.descriptions),
            *(known.fetching, known.troubles, known.environments),
            *(known.signature_changes, known.refused_signatures),
            *(known.damaged, known.failing, remembered),
        )
        same = len(self._described_from) == len(parts) and all(
            old is new or (index > 1 and old == new)
            for index, (old, new) in enumerate(zip(self._described_from, parts, strict=True))
        )
        if not same:
            described = describe_models(aspired, ledger, known)
            if remembered:
                described = [_as_remembered(one, remembered) for one in described]
            self.models = described
            self._described_from = parts

    def _has(self, node: NodeState, *, complete: bool) -> bool:
        """Whether the node has the models as they are described now."""
        sent = self._sent
        return (
            sent is not None
            and sent.complete == complete
            and self._sent_to == node.boot_id
            and node.catalogue_writer in (None, self._writer)
            and (sent.models is self.models or sent.models == self.models)
        )

    def _is_listed_anew(self, listed_at: float | None, source_error: str | None) -> bool:
        sent = self._sent
        if sent is None:
            return True
        fresh = (listed_at or 0.0) - (sent.listed_at or 0.0) >= _LISTED_AT_STEP_S
        return fresh or sent.source_error != source_error


def _as_remembered(model: CatalogueModel, remembered: AbstractSet[str]) -> CatalogueModel:
    return model.model_copy(update={"remembered": model.name in remembered})
