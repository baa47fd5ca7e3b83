"""The signatures of what is in the artifact store, compared once for each pair."""

from __future__ import annotations

from collections.abc import Mapping

from registry_sync.artifacts import StoredArtifact
from registry_sync.domain import SignatureChange, SignaturePolicy, compare_signatures

_REMEMBERED = 32_768


class Signatures:
    """Compares artifacts by digest. Event loop only."""

    def __init__(self, on_change: SignaturePolicy, artifacts: Mapping[str, StoredArtifact]) -> None:
        """Store. ``on_change`` says what a difference means."""
        self.on_change = on_change
        self._artifacts = artifacts
        self._known: dict[tuple[str, str], SignatureChange | None] = {}

    def between(self, before: str, after: str) -> SignatureChange | None:
        """Return what is different after; None: nothing is, or nobody can or wants to tell."""
        if self.on_change is SignaturePolicy.IGNORE or before == after:
            return None
        if (before, after) not in self._known:
            old, new = self._artifacts.get(before), self._artifacts.get(after)
            if old is None or new is None:
                return None
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            signatures = (one.description.get("signature") for one in (old, new))
            self._known[before, after] = compare_signatures(*signatures)
        return self._known[before, after]
