"""Composition root of the control plane: the only module that builds concrete classes."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from functools import cached_property, partial
from typing import TextIO, cast

import structlog
import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp
from uv import find_uv_bin

from gateway.log_lines import LogLines
from registry_sync.artifact_store import ArtifactStore
from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.damaged_files import DamagedFiles
from registry_sync.dependencies import OnMismatch
from registry_sync.disk_room import RoomLimits
from registry_sync.environments import Environments
from registry_sync.fetch import Fetcher, FetchLimits
from registry_sync.gateway_client import GatewayClient
from registry_sync.holds_file import HoldsFile
from registry_sync.installer import BuildLimits
from registry_sync.intake import Intake
from registry_sync.ledger import Ledger
from registry_sync.ledger_file import set_aside_damaged
from registry_sync.node_dir import private_socket, sole_owner
from registry_sync.operations.app import Operations, create_app
from registry_sync.operations.listener import PromptProtocol, TcpApp, tcp_socket
from registry_sync.operations.webhooks import (
    Webhook,
    WebhookSecrets,
    build_webhooks,
    create_webhooks_app,
)
from registry_sync.publish import Publisher
from registry_sync.reconcile import Limits, Reconciler
from registry_sync.records import AskedBy
from registry_sync.schedule import Schedule
from registry_sync.settings import SyncSettings
from registry_sync.signature_change import OnSignatureChange
from registry_sync.sources import mlflow_registry, s3_prefix
from registry_sync.sources.locations import as_source_error, connect_s3
from registry_sync.sources.s3_layout import Place
from registry_sync.sources.source import Source
from registry_sync.sweep import Sweep
from registry_sync.telemetry import registry_calls
from registry_sync.threads import Threads

_STOP_PATIENCE_S = 4
_MOST_TCP_CONNECTIONS = 64
_QUIET_LOGGERS = {
    **dict.fromkeys(("alembic", "httpx", "httpcore", "uvicorn", "botocore"), logging.WARNING),
    "urllib3": logging.ERROR,  # every try again is a warning; who gives up says why
}
_log = structlog.get_logger("registry_sync")


class LazyRegistry:
    """The registry, connected with the first question: importing mlflow or boto3 takes seconds.

    See `registry_sync.sources.source.Source`.
    """

    def __init__(
        self,
        tracking_uri: str,
        environ: MutableMapping[str, str],
        *,
        stages: bool,
        on_call: Callable[[str], None],
    ) -> None:
        """Store."""
        self._tracking_uri = tracking_uri
        self._environ = environ
        self._stages = stages
        self._on_call = on_call

    @cached_property
    def _registry(self) -> Source:
        if self._tracking_uri.startswith(s3_prefix.SCHEME):
            return s3_prefix.connect(self._tracking_uri, self._environ)
        return mlflow_registry.connect(
            self._tracking_uri, self._environ, stages=self._stages, on_call=self._on_call
        )

    @property
    def name(self) -> str:
        """What messages call the registry."""
        return f"the registry at {self._tracking_uri}"  # asking it would connect, in this thread

    def aspired(self, before: Aspired | None = None) -> Aspired:
        """List everything."""
        return self._registry.aspired(before)

    def model(self, name: str) -> AspiredModel | None:
        """Ask for one model."""
        return self._registry.model(name)

    def version(self, model: str, version: int) -> AspiredVersion:
        """Ask for one version."""
        return self._registry.version(model, version)

    def locate(self, model: str, version: int) -> str:
        """Return the URI of a version's bytes."""
        return self._registry.locate(model, version)

    def is_whole(self, version: AspiredVersion) -> bool:
        """Whether the registry knows that the last file has been uploaded."""
        return self._registry.is_whole(version)

    def stamp(self, model: str, version: int, digest: str) -> None:
        """Write a digest on a version."""
        self._registry.stamp(model, version, digest)


def build_registry(settings: SyncSettings) -> LazyRegistry:
    """Return the registry that the settings name; nothing is asked yet."""
    mlflow_registry.bound_mlflow(os.environ)
    return LazyRegistry(
        settings.tracking_uri,
        os.environ,
        stages=settings.stages,
        on_call=lambda call: registry_calls.labels(call).inc(),
    )


def build_fetcher(settings: SyncSettings) -> Fetcher:
    """Return the fetcher that the settings describe."""
    # What a prefix lists is whole: its manifest was written after its last file.
    settle_s = 0.0 if settings.tracking_uri.startswith(s3_prefix.SCHEME) else settings.settle_s
    limits = FetchLimits(
        max_bytes=settings.max_artifact_bytes,
        max_files=settings.max_artifact_files,
        timeout_s=settings.fetch_timeout_s,
        disk_floor_bytes=settings.disk_floor_bytes,
        settle_s=settle_s,
    )
    return Fetcher(tracking_uri=settings.tracking_uri, limits=limits, environ=os.environ)


def build_publisher(uri: str) -> Publisher:
    """Return a publisher to the model at ``s3://bucket/prefix/model``; nothing is asked yet.

    Raises:
        InvalidReferenceError: The URI names no model of an S3 registry.
        SourceError: boto3 cannot be set up by the environment.
    """
    place = Place.at(uri)
    with as_source_error("S3 cannot be used"):
        return Publisher(connect_s3(os.environ), place)


def build_environments(settings: SyncSettings) -> Environments:
    """Return the own environments of the settings' node; nothing is read yet."""
    limits = BuildLimits(settings.environment_timeout_s, settings.disk_floor_bytes)
    try:
        installer = find_uv_bin()
    except FileNotFoundError:  # installed by other means than pip: found by name, or at a build not
        installer = "uv"
    return Environments(settings.node_dir, installer=installer, limits=limits, environ=os.environ)


def run(settings: SyncSettings, end_log: Callable[[], object]) -> int:
    """Run the control plane until SIGTERM or SIGINT; return the exit status.

    ``end_log`` writes what of the log is waiting.

    Raises:
        StartError: It cannot start as it is set up.
        SyncError: The store or the ledger cannot be used as they are.
    """
    threads = Threads()
    damaged = DamagedFiles()
    with sole_owner(settings.node_dir, damaged) as node_id:
        try:
            asyncio.run(_serve(settings, node_id, threads, damaged))
        finally:
            ended = threads.close(patience_s=_STOP_PATIENCE_S)
            _log.info("control_plane.stopped", threads_ended=ended)
        if not ended or _is_held_up():
            # A thread stands in a call to a registry that does not answer. Nothing of it counts
            # any more, and waiting for it would take as long as the network lets it.
            end_log()
            os._exit(0)
    return 0


def _is_held_up() -> bool:
    """Whether a library's own thread, such as one of MLflow's downloads, would be waited for."""
    others = (one for one in threading.enumerate() if one is not threading.current_thread())
    return any(not one.daemon for one in others)


async def _serve(
    settings: SyncSettings, node_id: str, threads: Threads, damaged: DamagedFiles
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = ArtifactStore(
        settings.node_dir, budget_bytes=settings.disk_budget_bytes, damaged_files=damaged
    )
    await threads.ledger(store.open)
    environments = build_environments(settings)
    await threads.ledger(environments.open)
    holds_file = HoldsFile(settings.node_dir / "holds.json", damaged)
    await threads.ledger(set_aside_damaged, settings.ledger_url, settings.node_dir, damaged)
    ledger = Ledger(settings.ledger_url, node_id=node_id, clock=time.time, holds_file=holds_file)
    target = GatewayClient(settings.gateway_socket)
    spine = _spine(
        settings,
        store=store,
        ledger=ledger,
        holds_file=holds_file,
        target=target,
        threads=threads,
        environments=environments,
        damaged=damaged,
    )
    try:
        await spine.journal.open()
        with contextlib.ExitStack() as sockets:
            local = sockets.enter_context(private_socket(settings.operations_socket))
            tcp = sockets.enter_context(_tcp_socket(settings))
            _log.info(
                "control_plane.started",
                node_id=node_id,
                tracking_uri=settings.tracking_uri,
                poll_interval_s=settings.poll_interval_s,
                operations="http://{}:{}".format(*tcp.getsockname()[:2]) if tcp else None,
            )
            await _work(settings, spine, node_id, (local, tcp), stop)
    finally:
        await target.close()
        with contextlib.suppress(RuntimeError):  # the pool may be closed by then
            await spine.journal.close()


def _spine(
    settings: SyncSettings,
    *,
    store: ArtifactStore,
    ledger: Ledger,
    holds_file: HoldsFile,
    target: GatewayClient,
    threads: Threads,
    environments: Environments,
    damaged: DamagedFiles,
) -> Reconciler:
    registry = build_registry(settings)
    intake = Intake(
        source=registry,
        fetcher=build_fetcher(settings),
        store=store,
        require_digest=settings.require_digest,
    )
    return Reconciler(
        source=registry,
        intake=intake,
        store=store,
        ledger=ledger,
        target=target,
        threads=threads,
        environments=environments,
        boot_id=uuid.uuid4().hex,
        jitter=random.random,
        limits=Limits(
            settings.stage_timeout_s,
            settings.thorough_poll_every,
            RoomLimits(settings.rollback_window_s, settings.disk_floor_bytes),
        ),
        require_digest=settings.require_digest,
        on_mismatch=OnMismatch(settings.dependencies),
        on_signature_change=OnSignatureChange(settings.signature_change),
        holds_file=holds_file,
        damaged_files=damaged,
    )


async def _work(
    settings: SyncSettings,
    spine: Reconciler,
    node_id: str,
    listeners: tuple[socket.socket, socket.socket | None],
    stop: asyncio.Event,
) -> None:
    """Follow, poll and answer operators and webhooks until ``stop``.

    ``listeners``: the one for operators of this node, and perhaps the one for everybody.
    """
    schedule = Schedule(
        poll=spine.poll,
        sweep=Sweep(spine).run,
        poll_interval_s=settings.poll_interval_s,
        sweep_interval_s=settings.sweep_interval_s,
        jitter=random.random,
    )
    local, tcp = listeners
    webhooks = _webhooks(settings, spine) if tcp else ()
    look = partial(spine.poll, thorough=True)
    operators = create_app(Operations(spine, node_id, settings.tracking_uri, look, webhooks))
    servers = [(_Server(_uvicorn_config(operators)), local)]
    if tcp is not None:
        app = TcpApp(
            webhooks=create_webhooks_app(webhooks),
            operators=operators,
            token=_plain(settings.operations_token),
        )
        servers.append((_Server(_uvicorn_config(app, limit=_MOST_TCP_CONNECTIONS)), tcp))
    following = asyncio.ensure_future(spine.run())
    serving = [asyncio.ensure_future(server.serve(sockets=[one])) for server, one in servers]
    stopping = asyncio.ensure_future(stop.wait())
    schedule.start()
    try:
        tasks = (following, *serving, stopping)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        _log.info("control_plane.stopping")
        spine.threads.stop()
        await schedule.close()
        for server, _ in servers:
            server.should_exit = True
        stopping.cancel()
        failed = next(
            (
                error
                for task in (following, *serving)
                if task.done() and not task.cancelled() and (error := task.exception()) is not None
            ),
            None,
        )
        following.cancel()
        await asyncio.gather(following, *serving, stopping, return_exceptions=True)
    if failed:
        raise failed


def _tcp_socket(
    settings: SyncSettings,
) -> contextlib.AbstractContextManager[socket.socket | None]:
    if not settings.operations_port:
        return contextlib.nullcontext()
    return tcp_socket(settings.operations_host, settings.operations_port)


def _webhooks(settings: SyncSettings, spine: Reconciler) -> tuple[Webhook, ...]:
    secrets = WebhookSecrets(
        mlflow=_plain(settings.mlflow_webhook_secret),
        s3=_plain(settings.s3_webhook_token),
        reload=_plain(settings.reload_secret),
    )
    return build_webhooks(
        secrets,
        hint=partial(spine.hint, asked_by=AskedBy.WEBHOOK),
        tracking_uri=settings.tracking_uri,
        clock=time.time,
    )


def _plain(secret: SecretStr | None) -> str:
    """Return a secret as it is spelled; empty: it is not set."""
    return secret.get_secret_value() if secret else ""


def _uvicorn_config(app: ASGIApp, *, limit: int | None = None) -> uvicorn.Config:
    """Configure a server; ``limit``: most connections, beyond which callers are answered 503."""
    return uvicorn.Config(
        app,
        http=PromptProtocol,  # h11 bounds the bytes of a request's head, this its time
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=limit,
        timeout_graceful_shutdown=1,
    )


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def configure_logging(settings: SyncSettings) -> LogLines:
    """Log to stderr: JSON, or for eyes on a terminal; return the lines, written by a thread.

    The process's normal end waits for them, for a moment.
    """
    lines = LogLines(
        sys.stderr.fileno(), lambda left_out: _log.warning("log.left_out", lines=left_out)
    )
    lines.start()
    atexit.register(lines.end)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer()]
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO))
    logging.captureWarnings(capture=True)
    for name, least in _QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(least)
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=True,
    )
    return lines
