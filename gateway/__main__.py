"""Starts the gateway: ``python -m gateway``.

No console script: a forkserver's children import the parent's main script again, unless it is a
package's ``__main__``; a script would drag the whole gateway into every worker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import ValidationError

from gateway.bootstrap import Gateway, running_gateway
from gateway.errors import StartError
from gateway.http.listener import PublicServer, QuietServer, server_config
from gateway.node_dir import sole_owner
from gateway.settings import GatewaySettings
from gateway.settings_help import settings_help
from gateway.telemetry import configure_logging

_BACKLOG = 2048
_FILES_OF_ONE_WORKER = 8
_FILES_BESIDE = 128
_DISK_TAKES_NOTHING = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_GARBAGE_OBJECTS = 10_000
"""How many new objects begin a collection: a busy turn of the loop makes Python's 700 by itself."""
_log = structlog.get_logger("gateway")


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="Serve every model of a registry. It has no arguments: settings are "
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
    configure_logging(settings)
    try:
        settings = _with_room_for_connections(settings)
        with sole_owner(settings.node_dir), asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_serve(settings))
    except StartError as error:
        _log.error("start.failed", reason=str(error))  # the reason is all there is
        return 1
    return 0


def _settings() -> Iterator[str]:
    columns = shutil.get_terminal_size().columns
    for line in settings_help(GatewaySettings):
        yield textwrap.fill(line, columns, initial_indent="  ", subsequent_indent="      ")


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(settings: GatewaySettings) -> None:
    with contextlib.ExitStack() as sockets:
        public = sockets.enter_context(_public_socket(settings))
        control = sockets.enter_context(_control_socket_or_none(settings.control_socket))
        async with running_gateway(settings) as gateway:
            gc.collect()
            gc.freeze()  # what is here for good is not looked at again by every collection
            gc.set_threshold(_GARBAGE_OBJECTS)
            await _run_servers(gateway, settings, public, control)
        _log.info("gateway.stopped")


async def _run_servers(
    gateway: Gateway,
    settings: GatewaySettings,
    public: socket.socket,
    control: socket.socket | None,
) -> None:
    """Serve until a signal; then let what is in flight finish, and only then stop.

    ``control`` is None where no control plane can reach this gateway.
    """
    stop = asyncio.Event()
    drain_s = settings.drain_timeout_s
    ours = server_config(
        gateway.control, http="httptools", timeout_graceful_shutdown=max(1, int(drain_s))
    )
    serving: list[tuple[PublicServer | QuietServer, socket.socket]] = [
        (
            PublicServer(
                gateway.public,
                gateway.services.connections,
                drain_timeout_s=drain_s,
                take=gateway.public.take,
            ),
            public,
        )
    ]
    if control is not None:
        serving.append((QuietServer(ours), control))

    def asked_to_stop() -> None:
        if stop.is_set():  # asked again: now
            for server, _ in serving:
                server.force_exit = True
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
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
            server.should_exit = True


def _with_room_for_connections(settings: GatewaySettings) -> GatewaySettings:
    """Raise the limit of open files as far as the connections need it; else have fewer of them.

    Raises:
        StartError: Their number was set, and this process may not open so many files.
    """
    beside = _FILES_BESIDE + _FILES_OF_ONE_WORKER * settings.max_resident
    wanted = settings.max_connections + beside
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        # No further than that: the limit is every worker's too, and some libraries close all
        # files up to it.
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= wanted:
        return settings
    fitting = soft - beside
    if "max_connections" in settings.model_fields_set or fitting < 1:
        raise StartError(
            f"{settings.max_connections} connections need {wanted} open files, and this process "
            f"may have {hard}: raise its limit (ulimit -Hn), or set GATEWAY_MAX_CONNECTIONS to "
            f"{max(fitting, 0)} or less"
        )
    _log.warning("connections.limited", most=fitting, open_files=hard)
    return settings.model_copy(update={"max_connections": fitting})


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


@contextlib.contextmanager
def _control_socket_or_none(path: Path) -> Iterator[socket.socket | None]:
    """Listen for the control plane; None where the disk takes no socket: what served, serves.

    Raises:
        StartError: Something else is in the way.
    """
    with contextlib.ExitStack() as opened:
        try:
            listener = opened.enter_context(_control_socket(path))
        except OSError as error:
            if error.errno not in _DISK_TAKES_NOTHING:
                raise StartError(f"cannot listen on {path}: {error.strerror}") from error
            _log.error(
                "control.unreachable",
                reason=f"no socket can be made at {path} ({error.strerror}): this gateway serves "
                "what its files say, and follows nothing until it is started again",
            )
            listener = None
        yield listener


@contextlib.contextmanager
def _control_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that only this user may open; remove it at the end.

    Raises:
        OSError: There can be none.
        StartError: Another kind of file is in the way.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(f"{path} is in the way, and is no socket: remove it")
        path.unlink()  # left by a killed gateway: we hold the node's lock, so nobody listens
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        old_mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(old_mask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):  # the disk may take nothing by now
                path.unlink()


if __name__ == "__main__":
    sys.exit(main())
