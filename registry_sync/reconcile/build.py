"""Builds the collaborators of one control plane, and hands each what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from registry_sync.artifacts import ArtifactStore, BuildsEnvironments, OnMismatch, StoredArtifact
from registry_sync.domain import OnSignatureChange, PromotionWindows
from registry_sync.ledger import HoldsFile, Journal, Ledger
from registry_sync.planning import Due
from registry_sync.reconcile.disk_budget import DiskRoom, RoomLimits
from registry_sync.reconcile.gateway import Announcer, Observation, ServingTarget
from registry_sync.reconcile.operators import Operators
from registry_sync.reconcile.polling import Polling
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.registry import Hints, Listings
from registry_sync.reconcile.steps import (
    Arrival,
    Backoff,
    Copies,
    Executor,
    Intake,
    Preparation,
    Promotion,
    Steps,
)
from registry_sync.reconcile.sweep import Sweep
from registry_sync.reconcile.view import Changes, Descriptions, NodeView, Signatures, Snapshots
from registry_sync.sources import Source
from registry_sync.system import DamagedFiles, ModelFaults, Threads


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a stage may take; ``room`` says when bytes may go.

    Attributes:
        windows: When the registry may promote an alias that is active; empty: always.
    """

    stage_timeout_s: float = 600.0
    room: RoomLimits = field(default_factory=RoomLimits)
    windows: PromotionWindows = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What a node accepts.

    Attributes:
        require_digest: Versions without a stamp are refused.
        on_mismatch: What other libraries than the gateway's mean.
        on_signature_change: What other inputs and outputs mean.
    """

    require_digest: bool = False
    on_mismatch: OnMismatch = OnMismatch.WARN
    on_signature_change: OnSignatureChange = OnSignatureChange.WARN


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What follows the registry, what operators do and see, and what cleans up."""

    reconciler: Reconciler
    operators: Operators
    view: NodeView
    sweep: Sweep


def build(
    *,
    source: Source,
    intake: Intake,
    store: ArtifactStore,
    ledger: Ledger,
    target: ServingTarget,
    threads: Threads,
    environments: BuildsEnvironments,
    boot_id: str,
    jitter: Callable[[], float],
    limits: Limits,
    policy: Policy,
    holds_file: HoldsFile,
    damaged_files: DamagedFiles,
    clock: Callable[[], float],
) -> ControlPlane:
    """Return a control plane; nothing runs yet.

    ``clock`` gives epoch seconds, ``jitter`` numbers from 0 to 1; ``holds_file`` is the one that
    the ledger writes.
    """
    changes, due, faults = Changes(), Due(), ModelFaults()
    artifacts: dict[str, StoredArtifact] = {}
    backoff = Backoff(clock=clock, jitter=jitter)
    journal = Journal(ledger, threads, holds_file, on_news=changes.note)
    observation = Observation(target, on_news=changes.note)
    announcer = Announcer(target, writer=boot_id)
    signatures = Signatures(policy.on_signature_change, artifacts)
    listings = Listings(
        source=source,
        threads=threads,
        store=store,
        ledger=ledger,
        journal=journal,
        clock=clock,
        on_news=changes.note,
    )
    preparation = Preparation(
        environments=environments,
        on_mismatch=policy.on_mismatch,
        ledger=ledger,
        journal=journal,
        threads=threads,
        clock=clock,
    )
    disk_room = DiskRoom(
        target=target,
        observation=observation,
        announcer=announcer,
        artifacts=artifacts,
        listings=listings,
        journal=journal,
        store=store,
        threads=threads,
        changes=changes,
        limits=limits.room,
        clock=clock,
    )
    arrival = Arrival(
        source=source,
        intake=intake,
        ledger=ledger,
        journal=journal,
        listings=listings,
        threads=threads,
        artifacts=artifacts,
        make_room=disk_room.make,
        on_here=changes.note,
        clock=clock,
    )
    copies = Copies(
        arrival=arrival,
        store=store,
        threads=threads,
        on_dropped=changes.wake,
        clock=clock,
        jitter=jitter,
    )
    snapshots = Snapshots(
        listings=listings,
        observation=observation,
        journal=journal,
        artifacts=artifacts,
        preparation=preparation,
        signatures=signatures,
        backoff=backoff,
        require_digest=policy.require_digest,
        rollback_retention_s=limits.room.rollback_retention_s,
        windows=limits.windows,
        clock=clock,
    )
    promotion = Promotion(
        target=target,
        observation=observation,
        arrival=arrival,
        copies=copies,
        ledger=ledger,
        journal=journal,
        rechecks=snapshots,
        stage_timeout_s=limits.stage_timeout_s,
        clock=clock,
    )
    executor = Executor(
        arrival=arrival,
        preparation=preparation,
        promotion=promotion,
        copies=copies,
        rechecks=snapshots,
        journal=journal,
        threads=threads,
        clock=clock,
    )
    steps = Steps(
        do=executor,
        record=lambda attempt: journal.note(ledger.attempted, attempt),
        on_end=lambda model: changes.note({model}),
        may_overtake=executor.may_overtake,
        backoff=backoff,
        clock=clock,
    )
    descriptions = Descriptions(
        announcer=announcer,
        listings=listings,
        observation=observation,
        journal=journal,
        store=store,
        artifacts=artifacts,
        preparation=preparation,
        steps=steps,
        snapshots=snapshots,
        signatures=signatures,
        faults=faults,
        boot_id=boot_id,
    )
    polling = Polling(
        listings=listings,
        arrival=arrival,
        steps=steps,
        journal=journal,
        ledger=ledger,
        changes=changes,
    )
    hints = Hints(polling.look)
    return ControlPlane(
        reconciler=Reconciler(
            changes=changes,
            due=due,
            faults=faults,
            journal=journal,
            ledger=ledger,
            store=store,
            observation=observation,
            announcer=announcer,
            listings=listings,
            polling=polling,
            hints=hints,
            arrival=arrival,
            copies=copies,
            disk_room=disk_room,
            preparation=preparation,
            snapshots=snapshots,
            descriptions=descriptions,
            steps=steps,
            threads=threads,
            clock=clock,
        ),
        operators=Operators(
            journal=journal,
            ledger=ledger,
            steps=steps,
            due=due,
            hints=hints,
            snapshots=snapshots,
            changes=changes,
            clock=clock,
        ),
        view=NodeView(
            listings=listings,
            observation=observation,
            announcer=announcer,
            journal=journal,
            ledger=ledger,
            store=store,
            arrival=arrival,
            promotion=promotion,
            steps=steps,
            due=due,
            hints=hints,
            snapshots=snapshots,
            changes=changes,
            damaged_files=damaged_files,
            clock=clock,
        ),
        sweep=Sweep(
            journal=journal,
            ledger=ledger,
            observation=observation,
            listings=listings,
            preparation=preparation,
            artifacts=artifacts,
            disk_room=disk_room,
            changes=changes,
        ),
    )
