"""Starts the gateway: ``python -m gateway``.

It is no console script, since a forkserver's children import the parent's main script, unless it is
a package's ``__main__``. A script would import the whole gateway in every worker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import shutil
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator

import structlog
from pydantic import ValidationError

from gateway.bootstrap import Gateway, running_gateway
from gateway.settings import BODY_TIMEOUT_S, FEWEST_WORKERS, FORMER_SETTINGS, GatewaySettings
from gateway.system import (
    DATA_PLANE,
    StartError,
    misnamed_settings,
    private_socket,
    settings_help,
    sole_owner,
)
from gateway.system.http1 import (
    MOST_REFUSED,
    AsgiService,
    ConnectionLimits,
    Connections,
    Server,
    most_open,
)
from gateway.system.logs import configure_logging, hosts_of, remember, remember_names, secrets_of

_BACKLOG = 2048
_FILES_OF_ONE_WORKER = 8
_FILES_BESIDE = 128
_WORKERS_SHARE = 0.25
"""The share of the open files that workers may have by default."""
_CONTROL_CONNECTIONS = 32
_CONTROL_BODY_BYTES = 512 * 1024 * 1024
"""A thousand times the catalogue of a thousand models."""
_WITHOUT_CONTROL = (
    "this gateway serves what its files say, and follows nothing until it is started again"
)
_GARBAGE_OBJECTS = 10_000
"""New objects that begin a collection. One busy step of the loop makes Python's default of 700."""
_log = structlog.get_logger("gateway")


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="Serve every model of a registry. There are no arguments: settings are "
        "environment variables.",
        epilog="settings, with their defaults:\n\n" + "\n".join(_settings()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        for one in error.errors():
            name = "_".join(str(part) for part in one["loc"]).upper()
            print(f"GATEWAY_{name}: {one['msg']}", file=sys.stderr)  # noqa: T201  # before logging
        return 2
    remember(secrets_of(os.environ))
    remember_names(hosts_of(os.environ) | {str(settings.node_dir.absolute())})
    configure_logging(level=settings.log_level, form=settings.log_format)
    for reason in misnamed_settings(GatewaySettings, os.environ, FORMER_SETTINGS):
        _log.warning("setting.ignored", reason=reason)
    try:
        settings = _with_open_files(settings)
        with (
            _public_socket(settings) as public,  # first: a port in use must leave nothing behind
            sole_owner(settings.node_dir, DATA_PLANE),
            asyncio.Runner(loop_factory=_new_loop) as runner,
        ):
            runner.run(_serve(settings, public))
    except StartError as error:
        _log.error("start.failed", reason=str(error))
        return 1
    return 0


def _settings() -> Iterator[str]:
    columns = shutil.get_terminal_size().columns
    for line in settings_help(GatewaySettings):
        yield textwrap.fill(line, columns, initial_indent="  ", subsequent_indent="      ")


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(settings: GatewaySettings, public: socket.socket) -> None:
    with private_socket(settings.control_socket, DATA_PLANE, cost=_WITHOUT_CONTROL) as control:
        async with running_gateway(settings) as gateway:
            gc.collect()
            gc.freeze()  # permanent objects are not collected again and again
            gc.set_threshold(_GARBAGE_OBJECTS)
            await _run_servers(gateway, settings, public, control)
        _log.info("gateway.stopped")


async def _run_servers(
    gateway: Gateway,
    settings: GatewaySettings,
    public: socket.socket,
    control: socket.socket | None,
) -> None:
    """Serve until a signal, then finish the requests in flight and stop.

    ``control`` is None if no control socket could be made.

    Raises:
        RuntimeError: A listener ended before the signal.
    """
    stop = asyncio.Event()
    connections, drain_s = gateway.services.connections, settings.drain_timeout_s
    serving = [(Server(gateway.public, connections, drain_timeout_s=drain_s), public)]
    if control is not None:
        serving.append((_control_server(gateway, settings), control))

    def on_signal() -> None:
        if stop.is_set():  # the second signal
            for server, _ in serving:
                server.stop(at_once=True)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(server.serve(sockets=[listener])) for server, listener in serving
        ]
        _log.info(
            "gateway.started",
            address="http://{}:{}".format(*public.getsockname()[:2]),
            control=str(settings.control_socket) if control else None,
            node_id=gateway.services.node.node_id,
            generation=gateway.services.node.table.generation,
        )
        ended = [asyncio.ensure_future(stop.wait()), *running]
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        ended[0].cancel()
        _log.info("gateway.draining")
        gateway.drain()
        gateway.services.node.changed()  # ends the long polls
        for server, _ in serving:
            server.stop()
    if not stop.is_set():
        raise RuntimeError(
            "a listener of the gateway ended before SIGTERM or SIGINT; start the gateway again"
        )


def _control_server(gateway: Gateway, settings: GatewaySettings) -> Server:
    """Return the server of the control socket, which only this user may open."""
    service = AsgiService(
        gateway.control, max_body_bytes=_CONTROL_BODY_BYTES, body_timeout_s=BODY_TIMEOUT_S
    )
    limits = ConnectionLimits(_CONTROL_CONNECTIONS, settings.idle_timeout_s)
    return Server(service, Connections(limits), drain_timeout_s=settings.drain_timeout_s)


def _with_open_files(settings: GatewaySettings) -> GatewaySettings:
    """Raise the limit of open files for workers and connections, or return lower defaults of them.

    Raises:
        StartError: The number of connections was set, and needs more open files than allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and "max_resident" not in settings.model_fields_set:
        settings = _with_workers_for(settings, hard)
    beside = _FILES_BESIDE + _FILES_OF_ONE_WORKER * settings.max_resident
    wanted = most_open(settings.max_connections) + beside
    if soft < wanted:
        # No further: workers inherit the limit, and some libraries close all files up to it.
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= wanted:
        return settings
    room = soft - beside
    fitting = max(room - MOST_REFUSED, min(room // 2, MOST_REFUSED))
    if "max_connections" in settings.model_fields_set or fitting < 1:
        instead = (
            f"set GATEWAY_MAX_CONNECTIONS to {fitting} or less"
            if fitting > 0
            else f"lower GATEWAY_MAX_RESIDENT: each worker needs {_FILES_OF_ONE_WORKER} of them"
        )
        raise StartError(
            f"{settings.max_connections} connections and {settings.max_resident} workers need "
            f"{wanted} open files, and this process may have {hard}: raise its limit "
            f"(ulimit -Hn), or {instead}"
        )
    _log.warning("connections.limited", most=fitting, open_files=hard)
    return settings.model_copy(update={"max_connections": fitting})


def _with_workers_for(settings: GatewaySettings, open_files: int) -> GatewaySettings:
    """Return settings whose default number of workers leaves most files for connections."""
    most = int(_WORKERS_SHARE * (open_files - _FILES_BESIDE)) // _FILES_OF_ONE_WORKER
    fitting = max(most, FEWEST_WORKERS)
    if fitting >= settings.max_resident:
        return settings
    _log.warning("workers.limited", most=fitting, open_files=open_files)
    return settings.model_copy(update={"max_resident": fitting})


@contextlib.contextmanager
def _public_socket(settings: GatewaySettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise StartError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "set GATEWAY_HOST or GATEWAY_PORT"
            ) from error
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        yield listener


if __name__ == "__main__":
    sys.exit(main())
