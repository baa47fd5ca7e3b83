"""Composition root of the control plane; `reconcile.build` makes the parts of the reconciler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog
from pydantic import SecretStr
from uv import find_uv_bin

from gateway.system import (
    CONTROL_PLANE,
    misnamed_settings,
    private_socket,
    read_node_id,
    sole_owner,
)
from gateway.system.http1 import Server
from gateway.system.logs import (
    LogWriter,
    configure_logging,
    hosts_of,
    remember,
    remember_names,
    secrets_of,
)
from registry_sync.artifacts import ArtifactStore, BuildLimits, Environments, MismatchPolicy
from registry_sync.domain import Initiator, SignaturePolicy, parse_windows
from registry_sync.errors import SyncError
from registry_sync.ledger import HoldsFile, Ledger, set_aside_damaged
from registry_sync.operations import (
    ListenerLimits,
    Operations,
    Webhook,
    WebhookSecrets,
    build_webhooks,
    create_app,
    local_server,
    tcp_server,
    tcp_socket,
)
from registry_sync.reconcile import (
    ControlPlane,
    GatewayClient,
    Ingestion,
    Limits,
    Policy,
    RoomLimits,
    Schedule,
    build,
)
from registry_sync.settings import (
    ENVIRONMENT_TIMEOUT_S,
    FORMER_SETTINGS,
    MAX_ARTIFACT_FILES,
    STAGE_TIMEOUT_S,
    SWEEP_INTERVAL_S,
    SyncSettings,
)
from registry_sync.sources import (
    SCHEME,
    Fetcher,
    FetchLimits,
    ModelLocation,
    Publisher,
    Source,
    as_source_error,
    connect_mlflow,
    connect_s3,
    connect_s3_registry,
    refuse_passwords,
)
from registry_sync.system import DamagedFiles, NodeProcesses, Threads, registry_calls

_STOP_TIMEOUT_S = 4
_OPEN_FILES = 4096
"""Many times the files of fetches, builds, the ledger and the listeners' connections."""
_WITHOUT_OPERATIONS = "the control plane works, but operators of this machine cannot reach it"
_OWNER_ONLY = 0o077
_QUIET_LOGGERS = {
    **dict.fromkeys(
        ("alembic", "httpx", "httpcore", "uvicorn", "botocore", "mlflow"), logging.WARNING
    ),
    "urllib3": logging.ERROR,  # each retry is a warning; the caller reports the last failure
    "apscheduler": logging.ERROR,  # a slow poll is a warning; the next one comes
}
_log = structlog.get_logger("registry_sync")


def build_registry(settings: SyncSettings) -> Source:
    """Return the registry that the settings name; its first call connects to it.

    Raises:
        SourceError: The URI of an S3 registry has no bucket.
    """
    if settings.tracking_uri.startswith(SCHEME):
        return connect_s3_registry(settings.tracking_uri, os.environ, latest=settings.latest)
    count = registry_calls.labels
    return connect_mlflow(
        settings.tracking_uri,
        os.environ,
        latest=settings.latest,
        on_call=lambda one: count(one).inc(),
    )


def build_fetcher(settings: SyncSettings) -> Fetcher:
    """Return the fetcher that the settings describe."""
    # A version in S3 is complete once listed: its manifest is written after its last file.
    stable_after_s = 0.0 if settings.tracking_uri.startswith(SCHEME) else settings.upload_stable_s
    limits = FetchLimits(
        max_bytes=settings.max_artifact_bytes,
        max_files=MAX_ARTIFACT_FILES,
        timeout_s=settings.fetch_timeout_s,
        disk_floor_bytes=settings.disk_floor_bytes,
        stable_after_s=stable_after_s,
    )
    return Fetcher(tracking_uri=settings.tracking_uri, limits=limits, environ=os.environ)


def build_publisher(uri: str) -> Publisher:
    """Return a publisher to the model at ``s3://bucket/prefix/model``; makes no call yet.

    Raises:
        InvalidReferenceError: The URI names no model of an S3 registry.
        SourceError: boto3 cannot be set up by the environment.
    """
    location = ModelLocation.at(uri)
    with as_source_error("S3 cannot be used"):
        return Publisher(connect_s3(os.environ), location)


def build_environments(settings: SyncSettings) -> Environments:
    """Return the own environments of the settings' node; reads no file yet."""
    limits = BuildLimits(ENVIRONMENT_TIMEOUT_S, settings.disk_floor_bytes)
    try:
        installer = find_uv_bin()
    except FileNotFoundError:  # not installed by pip: a build finds it on PATH, or fails
        installer = "uv"
    return Environments(settings.node_dir, installer=installer, limits=limits, environ=os.environ)


def run_node(environ: Mapping[str, str]) -> int:
    """Run both processes of a node until SIGTERM or SIGINT; return the exit status."""
    return asyncio.run(NodeProcesses(environ).run())


def run(settings: SyncSettings, end_log: Callable[[], object]) -> int:
    """Run the control plane until SIGTERM or SIGINT; return the exit status.

    ``end_log`` writes the lines of the log that wait. A failure while it runs is logged: status 1.

    Raises:
        StartError: The control plane cannot start with these settings.
        SyncError: The store or the ledger cannot be used, or a URL has a password.
    """
    refuse_passwords(os.environ)
    for reason in misnamed_settings(SyncSettings, os.environ, FORMER_SETTINGS):
        _log.warning("setting.ignored", reason=reason)
    os.umask(_OWNER_ONLY)  # SQLite, uv and storages' libraries make files of their own
    limits = _with_room_for_work(ListenerLimits())
    threads = Threads()
    damaged = DamagedFiles()
    with (
        _tcp_socket(settings) as tcp,  # first: a taken port leaves nothing behind
        sole_owner(settings.node_dir, CONTROL_PLANE),
    ):
        try:
            with private_socket(
                settings.operations_socket, CONTROL_PLANE, cost=_WITHOUT_OPERATIONS
            ) as local:
                node_id = read_node_id(settings.node_dir, damaged, must_be_kept=True)
                listeners = _Listeners(local, tcp, limits)
                status = _run(_serve(settings, node_id, listeners, threads, damaged))
        finally:
            ended = threads.close(timeout_s=_STOP_TIMEOUT_S)
            _log.info("control_plane.stopped", threads_ended=ended)
        if not ended or _is_held_up():
            # A thread waits for a registry that does not answer. Its result is not needed, and
            # waiting for it would take as long as the network's timeouts.
            end_log()
            os._exit(status)
    return status


def _run(serving: Coroutine[None, None, None]) -> int:
    """Serve until the end; return the exit status."""
    try:
        asyncio.run(serving)
    except SyncError:
        raise
    except Exception:  # noqa: BLE001 - the end of the process must not wait for a thread
        _log.exception("control_plane.failed")
        return 1
    return 0


def _with_room_for_work(limits: ListenerLimits) -> ListenerLimits:
    """Raise the limit of open files; return limits of connections that leave files for the work.

    There are fewer connections if the system's hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        soft = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < _OPEN_FILES:
        _log.warning("files.limited", most=soft, wanted=_OPEN_FILES)
    fitting = limits.within(soft)
    if fitting != limits:
        _log.warning("connections.limited", tcp=fitting.tcp.most, local=fitting.local.most)
    return fitting


def _is_held_up() -> bool:
    """Whether a library's thread, such as a download of MLflow's, would delay the exit."""
    others = (one for one in threading.enumerate() if one is not threading.current_thread())
    return any(not one.daemon for one in others)


class _Listeners(NamedTuple):
    """The Unix socket for operators and the TCP socket, each None if not used, and their limits."""

    local: socket.socket | None
    tcp: socket.socket | None
    limits: ListenerLimits


async def _serve(
    settings: SyncSettings,
    node_id: str,
    listeners: _Listeners,
    threads: Threads,
    damaged: DamagedFiles,
) -> None:
    """Serve until a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    registry = build_registry(settings)
    store = ArtifactStore(
        settings.node_dir, budget_bytes=settings.disk_budget_bytes, damaged_files=damaged
    )
    environments = build_environments(settings)
    holds_file = HoldsFile(settings.node_dir / "holds.json", damaged)
    await threads.ledger(set_aside_damaged, settings.ledger_url, settings.node_dir, damaged)
    target = GatewayClient(settings.gateway_socket)
    plane = build(
        source=registry,
        intake=Ingestion(
            source=registry,
            fetcher=build_fetcher(settings),
            store=store,
            require_digest=settings.require_digest,
        ),
        store=store,
        ledger=Ledger(settings.ledger_url, node_id=node_id, clock=time.time, holds_file=holds_file),
        target=target,
        threads=threads,
        environments=environments,
        boot_id=uuid.uuid4().hex,
        jitter=random.random,
        limits=Limits(
            STAGE_TIMEOUT_S,
            RoomLimits(settings.rollback_retention_s, settings.disk_floor_bytes),
            parse_windows(settings.promotion_window),
        ),
        policy=Policy(
            settings.require_digest,
            MismatchPolicy(settings.dependencies),
            SignaturePolicy(settings.signature_change),
        ),
        holds_file=holds_file,
        damaged_files=damaged,
        clock=time.time,
    )
    journal = plane.reconciler.journal
    try:
        await journal.open()  # first: a ledger that refuses this release leaves no folders
        await threads.ledger(store.open)
        await threads.ledger(environments.open)
        _log.info(
            "control_plane.started",
            node_id=node_id,
            tracking_uri=settings.tracking_uri,
            poll_interval_s=settings.poll_interval_s,
            operations=_address(listeners.tcp),
        )
        await _work(settings, plane, _servers(settings, plane, node_id, listeners), stop)
    finally:
        await target.close()
        with contextlib.suppress(RuntimeError):  # the pool may be closed by then
            await journal.close()


def _address(tcp: socket.socket | None) -> str | None:
    return "http://{}:{}".format(*tcp.getsockname()[:2]) if tcp else None


def _servers(
    settings: SyncSettings, plane: ControlPlane, node_id: str, listeners: _Listeners
) -> list[tuple[Server, socket.socket]]:
    """Return the server of each listener."""
    local, tcp, limits = listeners
    webhooks = _webhooks(settings, plane) if tcp else ()
    operators = create_app(
        Operations(plane.view, plane.operators, node_id, settings.tracking_uri, webhooks)
    )
    servers = [(local_server(operators, limits.local), local)] if local is not None else []
    if tcp is not None:
        token = _plain(settings.operations_token)
        server = tcp_server(webhooks=webhooks, operators=operators, token=token, limits=limits.tcp)
        servers.append((server, tcp))
    return servers


async def _work(
    settings: SyncSettings,
    plane: ControlPlane,
    servers: Sequence[tuple[Server, socket.socket]],
    stop: asyncio.Event,
) -> None:
    """Reconcile, poll and serve operators and webhooks until ``stop``."""
    schedule = Schedule(
        poll=plane.reconciler.poll,
        sweep=plane.sweep.run,
        look=plane.reconciler.wake,
        windows=parse_windows(settings.promotion_window),
        poll_interval_s=settings.poll_interval_s,
        sweep_interval_s=SWEEP_INTERVAL_S,
        jitter=random.random,
        clock=time.time,
    )
    following = asyncio.ensure_future(plane.reconciler.run())
    scheduling = asyncio.ensure_future(schedule.run())
    serving = [asyncio.ensure_future(server.serve(sockets=[one])) for server, one in servers]
    stopping = asyncio.ensure_future(stop.wait())
    working = (following, scheduling, *serving)
    try:
        await asyncio.wait((*working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        _log.info("control_plane.stopping")
        plane.reconciler.threads.stop()
        scheduling.cancel()
        for server, _ in servers:
            server.stop()
        stopping.cancel()
        ended = (one for one in working if one.done() and not one.cancelled())
        failed = next(filter(None, (one.exception() for one in ended)), None)
        following.cancel()
        await asyncio.gather(*working, stopping, return_exceptions=True)
    if failed:
        raise failed
    if not stop.is_set():
        raise RuntimeError(
            "a listener, the reconciler or the schedule ended although the control plane was not "
            "stopped; start the control plane again"
        )


def _tcp_socket(
    settings: SyncSettings,
) -> contextlib.AbstractContextManager[socket.socket | None]:
    if not settings.operations_port:
        return contextlib.nullcontext()
    return tcp_socket(settings.operations_host, settings.operations_port)


def _webhooks(settings: SyncSettings, plane: ControlPlane) -> tuple[Webhook, ...]:
    secrets = WebhookSecrets(
        mlflow=_plain(settings.mlflow_webhook_secret),
        s3=_plain(settings.s3_webhook_token),
        reload=_plain(settings.reload_secret),
    )
    return build_webhooks(
        secrets,
        hint=partial(plane.reconciler.hint, asked_by=Initiator.WEBHOOK),
        tracking_uri=settings.tracking_uri,
        clock=time.time,
    )


def _plain(secret: SecretStr | None) -> str:
    """Return a secret's text, or an empty text if it is not set."""
    return secret.get_secret_value() if secret else ""


def begin_log(settings: SyncSettings) -> LogWriter:
    """Begin to log; return the writer, whose thread writes the lines."""
    remember(secrets_of(os.environ) | settings.secrets)
    remember_names(hosts_of(os.environ) | settings.names)
    return configure_logging(
        level=settings.log_level,
        form=settings.log_format,
        libraries=logging.INFO,
        quiet=_QUIET_LOGGERS,
    )
