"""Which artifacts may go, and which of them go now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set as AbstractSet
from dataclasses import dataclass, field, fields

from gateway.contract import NodeState
from registry_sync.artifacts import StoredArtifact
from registry_sync.domain import Aspired, LedgerView, find
from registry_sync.planning.admissibility import admissible_digest


@dataclass(frozen=True, slots=True)
class RetainedDigests:
    """Digests that must stay, by reason.

    Attributes:
        active: Targets of active aliases.
        standby: Standbys, and versions that callers wait for.
        resident: Versions with a replica, or waiting for one.
        previous: Previous versions, to the epoch seconds at which the alias left.
        last_known_good: The last healthy activation of each alias that somebody has, or had lately.
        aspired: Targets of the registry's aliases.
        held: Targets of holds and pins.
    """

    active: AbstractSet[str] = frozenset()
    standby: AbstractSet[str] = frozenset()
    resident: AbstractSet[str] = frozenset()
    previous: Mapping[str, float] = field(default_factory=dict)
    last_known_good: AbstractSet[str] = frozenset()
    aspired: AbstractSet[str] = frozenset()
    held: AbstractSet[str] = frozenset()

    def by_reason(self, *, now: float, rollback_retention_s: float) -> dict[str, AbstractSet[str]]:
        """Return what must stay at ``now`` (epoch seconds), by the names of the attributes."""
        reasons = {one.name: getattr(self, one.name) for one in fields(self)}
        recent = {d for d, left_at in self.previous.items() if now - left_at < rollback_retention_s}
        return reasons | {"previous": recent}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One stored artifact, as far as it matters for the choice.

    Attributes:
        digest: Which one.
        size_bytes: What its end would free.
        stored_at: Epoch seconds when it came in.
        needed_at: Epoch seconds when it was needed last, as far as is known.
        listed: Whether the registry lists a version with these bytes, which may be called by
            number.
    """

    digest: str
    size_bytes: int
    stored_at: float
    needed_at: float
    listed: bool


@dataclass(frozen=True, slots=True)
class Pressure:
    """How many bytes there are too many; 0 or less: none.

    Attributes:
        disk_bytes: How much less is free on the disk than ought to be.
        budget_bytes: How much more the artifact store holds, or is about to hold, than it may.
    """

    disk_bytes: int = 0
    budget_bytes: int = 0

    def without(self, freed_bytes: int) -> Pressure:
        """Return what is left of it once so much has gone."""
        return Pressure(self.disk_bytes - freed_bytes, self.budget_bytes - freed_bytes)


def removable(
    stored: Iterable[str], kept: RetainedDigests, *, now: float, rollback_retention_s: float
) -> frozenset[str]:
    """Return the stored digests that nothing needs.

    Args:
        stored: Every digest in the store.
        kept: What must stay.
        now: Epoch seconds.
        rollback_retention_s: How long what an alias left is kept.
    """
    reasons = kept.by_reason(now=now, rollback_retention_s=rollback_retention_s)
    return frozenset(stored).difference(*reasons.values())


def choose_removed(
    candidates: Iterable[Candidate],
    kept: RetainedDigests,
    *,
    now: float,
    rollback_retention_s: float,
    pressure: Pressure,
) -> list[str]:
    """Return the digests that go now, in the order in which they go.

    What the registry no longer lists goes first, and after a rollback window in any case; then
    what no alias means, the one that was needed least recently first, and no more of it than the
    pressure asks for. What came within the rollback window goes only for the budget: a small one
    would else let nothing in for as long.

    Args:
        candidates: Everything in the store.
        kept: What must stay.
        now: Epoch seconds.
        rollback_retention_s: How long what an alias left, or what just came, is kept.
        pressure: How many bytes there are too many.
    """
    found = {one.digest: one for one in candidates}
    free_to_go = removable(found, kept, now=now, rollback_retention_s=rollback_retention_s)
    in_order = sorted(
        (found[digest] for digest in free_to_go),
        key=lambda one: (one.listed, one.needed_at, one.digest),
    )
    going: list[str] = []
    for one in in_order:
        came_lately = now - one.stored_at < rollback_retention_s
        if came_lately:
            goes = pressure.budget_bytes > 0
        else:
            goes = not one.listed or pressure.budget_bytes > 0 or pressure.disk_bytes > 0
        if goes:
            going.append(one.digest)
            pressure = pressure.without(one.size_bytes)
    return going


# --- what is known of the node, in these words ----------------------------------------------------


def as_candidates(
    artifacts: Mapping[str, StoredArtifact],
    *,
    aspired: Aspired,
    ledger: LedgerView,
    needed_at: Mapping[str, float],
) -> list[Candidate]:
    """Return what the artifact store holds.

    Args:
        artifacts: By digest.
        aspired: The listing that counts.
        ledger: What is remembered.
        needed_at: Epoch seconds when some of them were needed; else it was when they came.
    """
    listed = {admissible_digest(one, ledger) for one in aspired.versions()}
    return [
        Candidate(
            digest=digest,
            size_bytes=one.size_bytes,
            stored_at=one.stored_at,
            needed_at=max(one.stored_at, needed_at.get(digest, 0.0)),
            listed=digest in listed,
        )
        for digest, one in artifacts.items()
    ]


def what_stays(
    node: NodeState, aspired: Aspired, ledger: LedgerView, *, recent_since: float
) -> RetainedDigests:
    """Return what must stay, by reason; what was retired after ``recent_since`` (epoch s), too."""
    targets = [
        find(aspired, model.name, version)
        for model in aspired.models.values()
        for version in model.aliases.values()
    ]
    wanted = [find(aspired, one.model, one.version) for one in node.wanted]
    previous: dict[str, float] = {}
    for one in node.active:
        if one.previous_digest:  # several aliases may have left it: the last one counts
            before = previous.get(one.previous_digest, one.since)
            previous[one.previous_digest] = max(before, one.since)
    return RetainedDigests(
        active=frozenset(one.digest for one in node.active),
        standby=frozenset(one.digest for one in node.standbys)
        | frozenset(d for one in wanted if one and (d := admissible_digest(one, ledger))),
        resident=frozenset(node.resident),
        previous=previous,
        last_known_good=frozenset(
            one.digest
            for one in ledger.last_active.values()
            if one.retired_at is None or one.retired_at > recent_since
        ),
        aspired=frozenset(d for one in targets if one and (d := admissible_digest(one, ledger))),
        held=frozenset(one.target_digest for one in ledger.holds.values()),
    )
