"""A listener that ends unasked ends its process with an error, so that it is started again."""

import socket
import sys
import tempfile

from tests.fakes.pythons import ended
from tests.servers import clean_environ, free_ports

END_LIMIT_S = 60.0
PROGRAM = """
import asyncio, sys
from gateway.system.http1.server import Server

async def end(_server):
    {how}

Server.main_loop = end
from {module} import {start} as start
sys.exit(start({arguments}))
"""
RETURNS = "await asyncio.sleep(0)"
IS_CANCELLED = "asyncio.current_task().cancel(); await asyncio.sleep(0)"


def run(*, how: str, settings: dict[str, str], **program: str) -> tuple[int, str]:
    """Start a plane whose listeners end at once; return its exit status and its log."""
    source = PROGRAM.format(how=how, **{"arguments": "", **program})
    command = [sys.executable, "-c", source]
    done = ended(command, env=clean_environ(settings), timeout_s=END_LIMIT_S)
    return done.returncode, done.stderr


def test_the_gateway_fails_when_a_listener_ends() -> None:
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder:
        settings = {"GATEWAY_NODE_DIR": folder, "GATEWAY_PORT": str(free_ports(1)[0])}
        status, log = run(how=RETURNS, settings=settings, module="gateway.__main__", start="main")
    assert "gateway.started" in log, log
    assert (status, "a listener of the gateway ended" in log) == (1, True), log


def test_the_control_plane_fails_when_a_listener_is_cancelled() -> None:
    """Even while a thread of it waits for a registry that never answers."""
    with (
        tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        settings = {
            "REGISTRY_SYNC_NODE_DIR": folder,
            "REGISTRY_SYNC_TRACKING_URI": "http://{}:{}".format(*silent.getsockname()),
            "REGISTRY_SYNC_OPERATIONS_PORT": "0",
        }
        status, log = run(
            how=IS_CANCELLED,
            settings=settings,
            module="registry_sync.cli.app",
            start="app",
            arguments="['control-plane']",
        )
    assert "control_plane.started" in log, log
    assert (status, "a listener, the reconciler or the schedule ended" in log) == (1, True), log
    assert "control_plane.failed" in log, log
