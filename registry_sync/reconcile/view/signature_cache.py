"""Signature changes between stored artifacts, compared once for each pair."""

from __future__ import annotations

from collections.abc import Mapping

from cachetools import LRUCache

from registry_sync.artifacts import StoredArtifact
from registry_sync.domain import SignatureChange, SignaturePolicy, compare_signatures

_REMEMBERED = 32_768


class Signatures:
    """Compares artifacts by digest. Event loop only."""

    def __init__(self, on_change: SignaturePolicy, artifacts: Mapping[str, StoredArtifact]) -> None:
        self._ignores = on_change is SignaturePolicy.IGNORE
        self._artifacts = artifacts
        self._known = LRUCache[tuple[str, str], SignatureChange | None](_REMEMBERED)

    def between(self, before: str, after: str) -> SignatureChange | None:
        """Return the signature change, or None if equal, unknown or ignored."""
        if self._ignores or before == after:
            return None
        if (before, after) not in self._known:
            old, new = self._artifacts.get(before), self._artifacts.get(after)
            if old is None or new is None:
                return None
            signatures = (one.description.get("signature") for one in (old, new))
            self._known[before, after] = compare_signatures(*signatures)
        return self._known[before, after]
