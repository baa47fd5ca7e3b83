"""Builds and connects the collaborators of one control plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from registry_sync.artifacts import ArtifactStore, BuildsEnvironments
from registry_sync.ledger import HoldsFile, Journal, Ledger
from registry_sync.planning import DueActions
from registry_sync.reconcile.context import Changes, Context, Limits, Policy
from registry_sync.reconcile.disk_budget import DiskRoom
from registry_sync.reconcile.gateway import Announcer, Observation, ServingTarget
from registry_sync.reconcile.operators import Operators
from registry_sync.reconcile.polling import Polls
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.registry import Hints, Listings
from registry_sync.reconcile.steps import (
    Backoff,
    Copies,
    EnvironmentStep,
    Executor,
    FetchStep,
    Ingestion,
    Promotion,
    Steps,
)
from registry_sync.reconcile.sweep import Sweep
from registry_sync.reconcile.view import Descriptions, NodeView, Signatures, Snapshots
from registry_sync.sources import Source
from registry_sync.system import DamagedFiles, ModelFaults, Threads


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The collaborators of one control plane that the rest of the process uses."""

    reconciler: Reconciler
    operators: Operators
    view: NodeView
    sweep: Sweep


def build(
    *,
    source: Source,
    intake: Ingestion,
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

    ``clock`` returns epoch seconds, ``jitter`` numbers from 0 to 1; ``holds_file`` must be the one
    that ``ledger`` writes.
    """
    changes, due, faults = Changes(), DueActions(), ModelFaults()
    journal = Journal(ledger, threads, holds_file, on_news=changes.note)
    listings = Listings(
        source=source,
        threads=threads,
        store=store,
        ledger=ledger,
        journal=journal,
        clock=clock,
        on_news=changes.note,
    )
    context = Context(
        source=source,
        store=store,
        ledger=ledger,
        journal=journal,
        target=target,
        threads=threads,
        listings=listings,
        observation=Observation(target, on_news=changes.note),
        announcer=Announcer(target, writer=boot_id),
        artifacts={},
        changes=changes,
        limits=limits,
        policy=policy,
        clock=clock,
        jitter=jitter,
    )
    backoff = Backoff(clock=clock, jitter=jitter)
    signatures = Signatures(policy.on_signature_change, context.artifacts)
    environment_step = EnvironmentStep(context, environments)
    disk_room = DiskRoom(context)
    fetch_step = FetchStep(context, intake, disk_room.make)
    copies = Copies(context)
    snapshots = Snapshots(context, environment_step, signatures, backoff)
    promotion = Promotion(context, fetch_step, copies, snapshots.of)
    executor = Executor(
        context,
        fetch_step=fetch_step,
        environment_step=environment_step,
        promotion=promotion,
        copies=copies,
    )
    steps = Steps(context, executor, backoff)
    polling = Polls(context, fetch_step, steps)
    hints = Hints(polling.look)
    reconciler = Reconciler(
        context,
        due=due,
        faults=faults,
        polling=polling,
        hints=hints,
        fetch_step=fetch_step,
        copies=copies,
        disk_room=disk_room,
        environment_step=environment_step,
        snapshots=snapshots,
        descriptions=Descriptions(
            context,
            environment_step=environment_step,
            steps=steps,
            snapshots=snapshots,
            faults=faults,
        ),
        steps=steps,
    )
    view = NodeView(
        context,
        fetch_step=fetch_step,
        promotion=promotion,
        steps=steps,
        due=due,
        hints=hints,
        snapshots=snapshots,
        damaged_files=damaged_files,
    )
    operators = Operators(context, steps, due, hints, snapshots)
    return ControlPlane(reconciler, operators, view, Sweep(context, environment_step, disk_room))
