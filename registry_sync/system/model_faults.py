"""Faults of ours in the work for one model: each is logged once, and the other models go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import structlog

_log = structlog.get_logger("registry_sync.system.model_faults")


class Faults:
    """What failed unexpectedly, by model and part of a pass. Event loop only.

    Bounded by `keep_only`.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._reasons: dict[tuple[str, str], str] = {}

    @contextlib.contextmanager
    def stay_in(self, model: str, part: str) -> Iterator[None]:
        """End the block where it fails, and go on after it; log a reason once, and not each time.

        Args:
            model: The model that the block is about, and no other.
            part: The part of a pass, as the log names it.
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
        """Forget what failed of other models than these."""
        self._reasons = {key: reason for key, reason in self._reasons.items() if key[0] in models}
