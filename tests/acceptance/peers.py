"""Callers on the bare socket, who may be as slow and as rude as they like."""

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any, Self
from urllib.parse import quote

ANSWER_LIMIT_S = 120.0


def predict_request(model: str, body: dict[str, Any], *headers: str) -> tuple[bytes, bytes]:
    """Head and body of one prediction by the model's version 1."""
    content = json.dumps(body).encode()
    lines = [
        f"POST /models/{quote(model, safe='')}/versions/1/predict HTTP/1.1",
        "host: node",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode(), content


LIVE = b"GET /health/live HTTP/1.1\r\nhost: node\r\n\r\n"


class Peer:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.ends = False
        """Whether the last answer said that it was the connection's last."""

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send pieces, with a pause before each but the first."""
        for number, piece in enumerate(pieces):
            if number and pause_s:
                await asyncio.sleep(pause_s)
            self._writer.write(piece)
            await self._writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Read one answer: its status and its body.

        Raises:
            EOFError: The connection ended instead.
            ConnectionError: It was reset instead.
        """
        async with asyncio.timeout(ANSWER_LIMIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            self.ends = b"\r\nconnection: close" in head
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return int(head.split()[1]), await self._reader.readexactly(length)

    async def leave(self, *, reset: bool = False) -> None:
        """Hang up: politely, or so that the other side sees a reset."""
        if reset:
            bare: socket.socket = self._writer.get_extra_info("socket")
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
