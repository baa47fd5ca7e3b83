"""The composition root: the only module that builds concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import structlog
from fastapi import FastAPI

from gateway.contract import ArtifactRef
from gateway.errors import TableFileError
from gateway.http import Predictions, Services, create_control_app, create_public_app
from gateway.observability import LiveTallies, Telemetry
from gateway.rollout import AutomaticRollback, Rollout
from gateway.routing import CONTROL_PLANE_SILENT_S, Node, TableFile
from gateway.serving import (
    LEAST_LOADS_AT_ONCE,
    MARK,
    Admission,
    Dispatcher,
    ExecLauncher,
    ForkserverLauncher,
    KeptProofs,
    Launchers,
    Life,
    LoadOrders,
    Observer,
    Replica,
    ReplicaLimits,
    ReplicaPool,
    ResidentLimits,
    ResidentSet,
    Supervisor,
    WorkerLimits,
    cuda_devices,
    end_leftovers,
)
from gateway.settings import (
    BATCH_BYTES,
    FEWEST_WORKERS,
    STUCK_GRACE_S,
    WORKER_IN_FLIGHT_BYTES,
    GatewaySettings,
)
from gateway.system import (
    StartError,
    available_cores,
    keep_running,
    mark_of_libraries,
    read_node_id,
    release_each,
)
from gateway.system.files import DamagedFiles
from gateway.system.http1 import ConnectionLimits, Connections

_ABANDONED_S = 1.0
_log = structlog.get_logger("gateway")


@dataclass(frozen=True)
class Gateway:
    """A running gateway: its two applications and their services."""

    public: Predictions
    control: FastAPI
    services: Services

    def drain(self) -> None:
        """Become not ready, and refuse new predictions."""
        self.services.draining = True
        self.services.dispatcher.drain()
        self.services.connections.drain()


class _LoadObserver:
    """Turns loads and ends into metrics and log lines, and reports damaged copies."""

    def __init__(self, telemetry: Telemetry, node: Node) -> None:
        self._telemetry = telemetry
        self._node = node

    def loaded(self, key: ArtifactRef, seconds: float, resident_bytes: int) -> None:
        labels = (key.model, str(key.version))
        self._telemetry.loads.labels(*labels).inc()
        self._telemetry.load_seconds.labels(*labels).observe(seconds)
        _log.info(
            "load.completed", replica=str(key), seconds=round(seconds, 3), bytes=resident_bytes
        )
        self._node.copy_whole(key.digest)

    def load_failed(self, key: ArtifactRef, failure: str, message: str) -> None:
        self._telemetry.load_failures.labels(key.model, str(key.version), failure).inc()
        _log.warning("load.failed", replica=str(key), failure=failure, reason=message)
        if failure == "integrity":
            self._node.copy_damaged(key, message)

    def ended(self, key: ArtifactRef, reason: str, *, evicted: bool, died: bool) -> None:
        labels = (key.model, str(key.version))
        if evicted:
            self._telemetry.evictions.labels(*labels).inc()
        if died:
            self._telemetry.deaths.labels(*labels).inc()
        _log.info("replica.stopped", replica=str(key), reason=reason, evicted=evicted)


@contextlib.asynccontextmanager
async def running_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Build a gateway, run it for the block, and release everything at its end.

    Raises:
        StartError: The table file cannot be used.
    """
    damaged = DamagedFiles()
    table_file = TableFile(settings.node_dir, damaged)
    try:  # first: a start that fails must leave nothing behind
        table = await asyncio.to_thread(table_file.load, settings.default_alias)
    except TableFileError as error:
        raise StartError(str(error)) from error
    node_id = read_node_id(settings.node_dir, damaged, must_be_kept=False)
    life = await _begin_life(node_id)
    installed = await asyncio.to_thread(mark_of_libraries, platform.python_version(), sys.path)
    node = Node(node_id=life.node_id, boot_id=life.boot_id, table=table, libraries=installed)
    telemetry = Telemetry()
    launcher = ForkserverLauncher()
    await launcher.warm()
    own_launcher = ExecLauncher(os.environ)
    proofs = KeptProofs(settings.node_dir / "proofs", damaged)
    load_orders = LoadOrders(node, settings.artifacts_dir.resolve(), _limits(settings), proofs)
    live_tallies = LiveTallies()
    residents = _resident_set(
        settings,
        load_orders,
        Launchers(launcher, own_launcher),
        launcher.private_bytes,
        observer=_LoadObserver(telemetry, node),
        live_tallies=live_tallies,
        proofs=proofs,
    )
    rollout = Rollout(
        node=node,
        residents=residents,
        table_file=table_file,
        telemetry=telemetry,
        stage_wait_s=settings.load_timeout_s + settings.warm_up_timeout_s + settings.load_budget_s,
    )
    dispatcher = Dispatcher(
        node,
        residents,
        live_tallies,
        request_timeout_s=settings.request_timeout_s,
        load_budget_s=settings.load_budget_s,
        max_waiting=settings.max_in_flight,
    )
    supervisor = Supervisor(
        residents,
        load_orders,
        table_file,
        interval_s=settings.probe_interval_s,
        request_timeout_s=settings.request_timeout_s,
        stuck_grace_s=STUCK_GRACE_S,
        idle_s=settings.on_demand_idle_s,
    )
    hot = await asyncio.to_thread(table_file.load_hot)
    residents.load_in_background(load_orders.servable(hot) + load_orders.preloaded())
    admission = Admission(
        max_in_flight=settings.max_total_in_flight,
        max_in_flight_bytes=settings.max_total_in_flight_bytes,
    )
    limits = ConnectionLimits(settings.max_connections, settings.idle_timeout_s)
    connections = Connections(limits)
    rollback = AutomaticRollback(
        node=node,
        rollout=rollout,
        live_tallies=live_tallies,
        min_requests=settings.rollback_min_requests,
        window_s=settings.observation_window_s,
    )
    services = Services(node, residents, dispatcher, rollout, telemetry, admission, connections)
    unheard = asyncio.get_running_loop().call_later(
        CONTROL_PLANE_SILENT_S, _report_unheard, node, settings
    )
    watching = [
        asyncio.get_running_loop().create_task(keep_running(component, run))
        for component, run in (("supervision", supervisor.run), ("rollback", rollback.run))
    ]
    try:
        yield Gateway(create_public_app(services, settings), create_control_app(services), services)
    finally:
        unheard.cancel()
        for watch in watching:
            watch.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await release_each(
            supervisor.remember_hot,
            rollout.close,
            # The listeners have waited for their callers; the other leases are abandoned.
            partial(residents.close, _ABANDONED_S),
            proofs.close,
            own_launcher.close,
            launcher.close,
        )


def _report_unheard(node: Node, settings: GatewaySettings) -> None:
    """Log once, some time after the start, that no control plane has connected."""
    if not node.control_plane_heard:
        _log.warning(
            "control_plane.not_heard",
            reason=f"no control plane has connected to {settings.control_socket.absolute()}: this "
            "gateway serves what its files say, and follows no registry; start one with "
            "`registry-gateway control-plane` and REGISTRY_SYNC_NODE_DIR="
            f"{settings.node_dir.absolute()}, or both processes with `registry-gateway up`",
        )


async def _begin_life(node_id: str) -> Life:
    """Begin a life of the node, in which every process that is started inherits its mark."""
    life = Life.own(node_id, uuid.uuid4().hex)
    await asyncio.to_thread(_end_leftovers, life)
    os.environ[MARK] = life.as_mark()
    return life


def _end_leftovers(life: Life) -> None:
    """End leftovers of earlier lives, as far as possible. Blocking."""
    try:
        count = end_leftovers(life)
    except OSError as error:
        _log.warning("leftovers.stop_failed", reason=str(error))
    else:
        if count:
            _log.warning("leftovers.stopped", processes=count)


def _limits(settings: GatewaySettings) -> WorkerLimits:
    """Return the limits of each worker."""
    return WorkerLimits(
        threads=settings.worker_threads
        or max(1, available_cores() // min(settings.max_resident, FEWEST_WORKERS)),
        memory_bytes=settings.worker_memory_bytes or settings.max_resident_bytes,
        batch_bytes=BATCH_BYTES,
        answer_bytes=settings.max_answer_bytes,
        cuda_devices=cuda_devices(os.environ),
        not_finite=settings.not_finite,
        proof_budget_s=settings.proof_s,
        timeout_s=settings.request_timeout_s,
    )


def _resident_set(
    settings: GatewaySettings,
    load_orders: LoadOrders,
    launchers: Launchers,
    shared_bytes: Callable[[], int],
    *,
    observer: Observer,
    live_tallies: LiveTallies,
    proofs: KeptProofs,
) -> ResidentSet:
    limits = ReplicaLimits(
        max_in_flight=settings.max_in_flight,
        max_in_flight_bytes=WORKER_IN_FLIGHT_BYTES,
        load_timeout_s=settings.load_timeout_s,
        warm_up_timeout_s=settings.warm_up_timeout_s,
        stuck_grace_s=STUCK_GRACE_S,
        proof_s=settings.proof_s,
    )

    def new_replica(key: ArtifactRef, on_stopped: Callable[[Replica], None]) -> Replica:
        count = partial(live_tallies.count, key)
        return Replica(str(key), launchers, limits, on_stopped, count, on_proof=proofs.keep)

    return ResidentSet(
        ReplicaPool(new_replica=new_replica, prepare=load_orders.load_order, observer=observer),
        limits=ResidentLimits(
            settings.max_resident,
            settings.max_resident_bytes,
            loads_at_once=max(LEAST_LOADS_AT_ONCE, available_cores() // 2),
        ),
        load_budget_s=settings.load_budget_s,
        max_waiting=settings.max_in_flight,
        requirements=load_orders,
        shared_bytes=shared_bytes,
    )
