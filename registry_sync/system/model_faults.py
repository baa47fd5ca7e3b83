"""Unexpected errors in the work for one model, which do not affect other models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set as AbstractSet

import structlog

_log = structlog.get_logger("registry_sync.system.model_faults")


class ModelFaults:
    """Errors by model and part of a pass; `keep_only` bounds them. Event loop only."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str] = {}

    @contextlib.contextmanager
    def isolate(self, model: str, part: str) -> Iterator[None]:
        """Suppress any error of the block, which concerns one model.

        ``<part>.failed`` is logged unless the error is the same as before.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - one model's fault stops no other model
            reason = f"{type(error).__name__}: {error}"
            if self._reasons.get((model, part)) != reason:
                _log.exception(f"{part}.failed", model=model)
            self._reasons[model, part] = reason
        else:
            self._reasons.pop((model, part), None)

    def keep_only(self, models: AbstractSet[str]) -> None:
        """Remove the errors of all other models."""
        self._reasons = {key: reason for key, reason in self._reasons.items() if key[0] in models}
