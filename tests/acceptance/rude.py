"""Callers who cost more than they bring: ``python -m tests.acceptance.rude KIND PORT``.

Each connection sends without a pause, and begins anew where it was cut, until standard input ends.
Prints a line when the first answer has come, and in the end how many there were of each status, and
how many connections were cut, as JSON. Works at the lowest priority: what it costs the gateway is
looked at, not what it costs the machine.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

from tests.acceptance.peers import LIVE as GET

HEAD = b"POST /models/nobody/predict HTTP/1.1\r\nhost: g\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
OFFER = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAM\r\n"
ESCAPES = b"%41" * 20_000
FIELDS = b"&".join(b"a%d=1" % number for number in range(7_000))
ATTACKS: dict[str, tuple[int, list[bytes]]] = {
    "chunks": (32, [CHUNKED, *[b"1\r\nx\r\n" * 10_000] * 10]),
    "queries": (
        2,
        [
            b"POST /models/nobody/predict?" + FIELDS + b" HTTP/1.1\r\nhost: g\r\n\r\n",
            b"GET /models/" + ESCAPES + b" HTTP/1.1\r\nhost: g\r\n\r\n",
            HEAD + b"x-model-version: " + ESCAPES + b"\r\n\r\n",
        ],
    ),
    "upgrades": (
        2,
        [HEAD + OFFER + b"content-length: %d\r\n\r\n" % len(GET) + GET] * 100,
    ),
    "pipelining": (2, [GET * 5_000]),
}
"""How many connections, and what each of them sends again and again.

The body of an upgrade is a request that would be answered 200, were it read as one.
"""
STATUS, STATUS_BYTES = re.compile(rb"HTTP/1\.1 (\d{3}) "), len("HTTP/1.1 200 ")
CUT = "cut"
BEGUN = "begun"


class Rude:
    """One kind of them, and what they are answered."""

    def __init__(self, port: int, pieces: list[bytes]) -> None:
        self._port = port
        self._pieces = pieces
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            listening = asyncio.create_task(self._listen(reader))
            try:
                while not listening.done():
                    for piece in self._pieces:
                        writer.write(piece)
                        await writer.drain()
            except ConnectionError:
                self._count(CUT)
            finally:
                writer.transport.abort()
                with contextlib.suppress(ConnectionError):
                    await listening

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while data := await reader.read(2**16):
            rest += data
            end = 0
            for found in STATUS.finditer(rest):
                self._count(found[1].decode())
                end = found.end()
            rest = rest[max(end, len(rest) - STATUS_BYTES) :]

    def _count(self, what: str) -> None:
        if not self.counts:
            print(BEGUN, flush=True)
        self.counts[what] += 1


async def main(kind: str, port: int) -> None:
    """Attack until standard input ends, and say how it went."""
    connections, pieces = ATTACKS[kind]
    rude = Rude(port, pieces)
    attack = asyncio.gather(*(rude.run() for _ in range(connections)))
    ends = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([attack, ends], return_when=asyncio.FIRST_COMPLETED)
    attack.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attack
    print(json.dumps(rude.counts))


def give_way() -> None:
    """Take the lowest priority, also where the kernel shares the machine out by sessions."""
    os.nice(19)
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


if __name__ == "__main__":
    give_way()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
