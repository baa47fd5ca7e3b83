"""Unix sockets for servers inside a test."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from gateway.system import CONTROL_PLANE, private_socket


@contextlib.contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """Listen at a path for the block."""
    with private_socket(path, CONTROL_PLANE, cost="") as listener:
        assert listener is not None
        yield listener
