"""The composition root: the only module that builds concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import structlog
from fastapi import FastAPI

from gateway.dispatch import Dispatcher
from gateway.errors import GatewayError, LoadError, TableFileError
from gateway.http.app import create_control_app, create_public_app
from gateway.http.predict import App
from gateway.http.services import Services
from gateway.launcher import ExecLauncher, ForkserverLauncher, Launchers
from gateway.live_record import LiveRecord
from gateway.model_ref import digest_hex
from gateway.node import Node
from gateway.replica import Replica, ReplicaLimits
from gateway.residency import BASE_WORKER_BYTES, OWN_WORKER_BYTES, ResidentSet
from gateway.rollback import RollbackRule
from gateway.rollout import Rollout
from gateway.room import ReplicaKey, ResidentLimits
from gateway.settings import GatewaySettings
from gateway.supervision import Supervisor
from gateway.table_file import TableFile
from gateway.telemetry import Telemetry
from gateway.verdict import Margins
from gateway.worker import messages

_DESCRIPTION_FORMAT = 1
_SOCKET_PATH_BYTES = 107
_ABANDONED_S = 1.0
_log = structlog.get_logger("gateway")


class StartError(Exception):
    """The gateway cannot start; the message says what to do."""


@dataclass(frozen=True)
class Gateway:
    """A running gateway: its two applications, and how to begin to stop it."""

    public: App
    control: FastAPI
    services: Services

    def drain(self) -> None:
        """Say 'not ready', and accept no new predictions."""
        self.services.draining = True
        self.services.dispatcher.drain()


class _LoadObserver:
    """Turns loads and ends into metrics, log lines, and news for the control plane."""

    def __init__(self, telemetry: Telemetry, changed: Callable[[], None]) -> None:
        self._telemetry = telemetry
        self._changed = changed

    def loaded(self, key: ReplicaKey, seconds: float, resident_bytes: int) -> None:
        labels = (key.model, str(key.version))
        self._telemetry.loads.labels(*labels).inc()
        self._telemetry.load_seconds.labels(*labels).observe(seconds)
        _log.info(
            "load.complete", replica=str(key), seconds=round(seconds, 3), bytes=resident_bytes
        )
        self._changed()

    def load_failed(self, key: ReplicaKey, failure: str, message: str) -> None:
        self._telemetry.load_failures.labels(key.model, str(key.version), failure).inc()
        _log.warning("load.failed", replica=str(key), failure=failure, reason=message)
        self._changed()

    def ended(self, key: ReplicaKey, reason: str, *, evicted: bool) -> None:
        labels = (key.model, str(key.version))
        if evicted:
            self._telemetry.evictions.labels(*labels).inc()
        elif "shutting down" not in reason and "retired" not in reason:
            self._telemetry.deaths.labels(*labels).inc()
        _log.info("replica.stopped", replica=str(key), reason=reason, evicted=evicted)
        self._changed()


@contextlib.asynccontextmanager
async def running_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Build a gateway from its table file, run it, and release everything at the end.

    Raises:
        StartError: The node's folder or table file cannot be used.
    """
    node_id = _prepare_node(settings)
    table_file = TableFile(settings.node_dir)
    try:
        table = await asyncio.to_thread(table_file.load, settings.default_alias)
    except TableFileError as error:
        raise StartError(str(error)) from error
    node = Node(node_id=node_id, boot_id=uuid.uuid4().hex, table=table)
    telemetry = Telemetry()
    launcher = ForkserverLauncher()
    await launcher.warm()
    own_launcher = ExecLauncher(os.environ)
    residents = _resident_set(settings, node, launcher, own_launcher, telemetry)
    rollout = Rollout(
        node=node,
        residents=residents,
        table_file=table_file,
        telemetry=telemetry,
        standby_timeout_s=settings.standby_timeout_s,
        stage_wait_s=settings.load_timeout_s + settings.load_budget_s,
    )
    live_record = LiveRecord()
    dispatcher = Dispatcher(
        node,
        residents,
        live_record,
        request_timeout_s=settings.request_timeout_s,
        load_budget_s=settings.load_budget_s,
        max_waiting=settings.max_in_flight,
        max_waiting_bytes=settings.max_waiting_bytes,
    )
    supervisor = Supervisor(
        residents,
        telemetry,
        interval_s=settings.probe_interval_s,
        probe_timeout_s=settings.request_timeout_s + settings.stuck_grace_s,
    )
    rule = RollbackRule(
        node=node,
        rollout=rollout,
        live_record=live_record,
        margins=Margins(
            min_requests=settings.rollback_min_requests,
            error_share=settings.rollback_error_margin,
            latency_ratio=settings.rollback_latency_ratio,
            latency_floor_s=settings.rollback_latency_floor_s,
        ),
        window_s=settings.rollback_window_s,
    )
    services = Services(node, residents, dispatcher, rollout, telemetry)
    watching = [
        asyncio.get_running_loop().create_task(watch) for watch in (supervisor.run(), rule.run())
    ]
    try:
        yield Gateway(create_public_app(services, settings), create_control_app(services), services)
    finally:
        for watch in watching:
            watch.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await rollout.close()
        # The listeners have waited for their callers; what is leased still was abandoned by them.
        await residents.close(_ABANDONED_S)
        await own_launcher.close()
        await launcher.close()


def _resident_set(
    settings: GatewaySettings,
    node: Node,
    launcher: ForkserverLauncher,
    own_launcher: ExecLauncher,
    telemetry: Telemetry,
) -> ResidentSet:
    launchers = Launchers(launcher, own_launcher)
    limits = ReplicaLimits(
        max_in_flight=settings.max_in_flight,
        max_in_flight_bytes=settings.max_in_flight_bytes,
        load_timeout_s=settings.load_timeout_s,
        stuck_grace_s=settings.stuck_grace_s,
    )

    def new_replica(key: ReplicaKey, on_stopped: Callable[[Replica], None]) -> Replica:
        return Replica(str(key), launchers, limits, on_stopped)

    async def prepare(key: ReplicaKey) -> messages.Load:
        rows = node.table.policy_of(key.model, key.version).max_batch_rows
        folder = settings.artifacts_dir.resolve()
        interpreter = _interpreter(node, key)
        load = await asyncio.to_thread(_read_load, folder, key, settings.worker_threads, rows)
        return replace(load, interpreter=interpreter)

    def estimate(key: ReplicaKey) -> int:
        try:
            listed = node.table.version(key.model, key.version)
        except GatewayError:
            return BASE_WORKER_BYTES  # served although the registry no longer lists it
        own = listed.environment.kind == "own"
        return (OWN_WORKER_BYTES if own else BASE_WORKER_BYTES) + 2 * (listed.size_bytes or 0)

    return ResidentSet(
        limits=ResidentLimits(settings.max_resident, settings.max_resident_bytes),
        load_budget_s=settings.load_budget_s,
        max_waiting=settings.max_in_flight,
        new_replica=new_replica,
        prepare=prepare,
        estimate=estimate,
        observer=_LoadObserver(telemetry, node.changed),
        shared_bytes=launcher.private_bytes,
    )


def _interpreter(node: Node, key: ReplicaKey) -> str | None:
    """Return the version's own interpreter; None: it runs under ours.

    Raises:
        LoadError: Its own environment is not built. Ours would answer, but perhaps something else.
    """
    try:
        environment = node.table.version(key.model, key.version).environment
    except GatewayError:
        return None  # served although the registry no longer lists it
    if environment.kind == "own" and environment.python is None:
        raise LoadError("worker_died", f"the own environment of {key} is not built (yet)")
    return environment.python


def _read_load(
    artifacts: Path, key: ReplicaKey, threads: int, max_batch_rows: int | None
) -> messages.Load:
    """Read what a worker is told about its artifact. Blocking.

    Raises:
        LoadError: The artifact is not in the store, or newer than this gateway.
    """
    name = digest_hex(key.digest)
    try:
        description = orjson.loads((artifacts / f"{name}.json").read_bytes())
    except FileNotFoundError as error:
        raise LoadError(
            "integrity", f"the bytes of {key} are not in this node's artifact store"
        ) from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise LoadError("load_failed", f"the description of {key} is unreadable") from error
    if description.get("format_version", 1) > _DESCRIPTION_FORMAT:
        raise LoadError(
            "unsupported", "the artifact store was written by a newer version: upgrade the gateway"
        )
    return messages.Load(
        model=key.model,
        version=key.version,
        digest=key.digest,
        artifact=str(artifacts / name),
        manifest=str(artifacts / f"{name}.manifest"),
        description=description,
        threads=threads,
        max_batch_rows=max_batch_rows or 1024,
    )


def _prepare_node(settings: GatewaySettings) -> str:
    """Make the node's folder and its id. Blocking, but once.

    Raises:
        StartError: The folder cannot be written, or its path is too long for a Unix socket.
    """
    socket_path = settings.control_socket.resolve()
    if len(os.fsencode(socket_path)) > _SOCKET_PATH_BYTES:
        raise StartError(
            f"{socket_path} is longer than a Unix socket's path may be ({_SOCKET_PATH_BYTES} "
            "bytes): set GATEWAY_NODE_DIR to a shorter one"
        )
    try:
        settings.node_dir.mkdir(parents=True, exist_ok=True)
        return _node_id(settings.node_dir / "node_id")
    except OSError as error:
        raise StartError(
            f"the node's folder {settings.node_dir} cannot be used: {error}"
        ) from error


def _node_id(path: Path) -> str:
    """Return the node's id; the plane that starts first makes it."""
    temporary = path.with_name(f".node_id.{os.getpid()}")
    temporary.write_text(f"{uuid.uuid4()}\n")
    try:
        # A link, unlike a rename, does not replace what the other plane may just have made.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink()
    return path.read_text().strip()
