"""Workers without a process: a pair of descriptors, and a task that speaks a worker's language.

It predicts the version's number times ``x``. ``HANG_ON`` is never answered, ``EXIT_ON`` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from gateway.worker.protocol.frames import Frame, FrameReader, pack
from gateway.worker.protocol.messages import (
    KIND_OF,
    Alive,
    Failed,
    Hello,
    Kind,
    Load,
    Loaded,
    LoadFailed,
    Message,
    Reply,
    Warming,
    decode_header,
    encode_header,
)

HANG_ON, EXIT_ON = -1.0, -2.0
_FIRST_PID = 4194305  # beyond the kernel's largest
_pids = itertools.count(_FIRST_PID)


class FakeWorker:
    """What a launcher returns; readable ``exited`` stands for an ended process."""

    def __init__(self) -> None:
        self.pid = next(_pids)
        self.channel, self.peer = socket.socketpair()
        self.channel.setblocking(False)
        self.exited, self._exit = os.pipe()
        self.output, self.spoken = multiprocessing.Pipe(duplex=False)
        self.killed = self.closed = False
        self.status = -9

    def exit_status(self) -> int | None:
        """How it ended."""
        return self.status if self.killed else None

    def kill(self) -> None:
        """End; what has not been read by the worker is lost."""
        if not self.killed:
            self.killed = True
            os.close(self._exit)
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_RDWR)  # unlike a close, it wakes who reads
            self.peer.close()

    def close(self) -> None:
        """End, and release every descriptor."""
        self.kill()
        self.closed = True
        self.channel.close()
        self.peer.close()
        self.output.close()
        self.spoken.close()
        os.close(self.exited)


class FakeLauncher:
    """Starts such workers on the running loop.

    Attributes:
        failures: How many of the next loads fail.
    """

    def __init__(self, private_bytes: Callable[[int], int]) -> None:
        """Store what a worker of a version says that it holds."""
        self._started: list[FakeWorker] = []
        self.failures = 0
        self._private_bytes = private_bytes
        self._lives: set[asyncio.Task[None]] = set()

    def alive(self) -> int:
        """Count those that have not ended."""
        self._started = [worker for worker in self._started if not worker.killed]
        return len(self._started)

    async def launch(self, interpreter: str | None) -> Any:
        """Start a worker."""
        await asyncio.sleep(0)
        worker = FakeWorker()
        self._started.append(worker)
        life = asyncio.get_running_loop().create_task(
            self._live(worker, worker.peer.dup(), interpreter)
        )
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return worker

    async def _live(self, worker: FakeWorker, own: socket.socket, interpreter: str | None) -> None:
        """Be the process. ``own``: a descriptor that nobody else closes while the loop waits."""
        with own as peer:
            peer.setblocking(False)
            try:
                if await self._greeted(peer, worker.pid, interpreter):
                    await self._serve(peer)
            except OSError:
                pass  # killed
            finally:
                worker.kill()

    async def _greeted(self, peer: socket.socket, pid: int, interpreter: str | None) -> bool:
        """Say HELLO; False: end."""
        await _say(peer, 0, Hello(pid, "3.11"))
        return True

    async def _serve(self, peer: socket.socket) -> None:
        reader, version, hung = FrameReader(), 0, set[int]()
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(peer, 1 << 16):
            for frame in reader.feed(data):
                if frame.kind == Kind.LOAD:
                    version = decode_header(Load, frame.header).version
                    if not await self._loaded(peer, frame, version):
                        return
                elif frame.kind == Kind.STOP or not await self._answer(peer, frame, version, hung):
                    return

    async def _loaded(self, peer: socket.socket, frame: Frame, version: int) -> bool:
        """Say how a load went; False: end."""
        if self.failures:
            self.failures -= 1
            await _say(peer, frame.id, LoadFailed("load_failed", "told to fail"))
            return False
        await _say(peer, frame.id, Warming())
        held = self._private_bytes(version)
        await _say(peer, frame.id, Loaded(held, {}, "passed", "alone", "", "pyfunc", ""))
        return True

    async def _answer(
        self, peer: socket.socket, frame: Frame, version: int, hung: set[int]
    ) -> bool:
        """Answer one frame; False: end."""
        if frame.kind == Kind.PROBE:
            await _say(peer, frame.id, Alive(self._private_bytes(version), True))
        if frame.kind == Kind.CANCEL and frame.id in hung:
            hung.discard(frame.id)
            await _say(peer, frame.id, Failed("cancelled", "nobody waits"))
        if frame.kind != Kind.PREDICT:
            return True
        x = json.loads(frame.body)["features"][0]
        if x == HANG_ON:
            hung.add(frame.id)
        if x not in (HANG_ON, EXIT_ON):
            await asyncio.sleep(0)
            reply = Reply(1, 0.0, 0.0, 1)
            body = json.dumps({"predictions": [version * x]}).encode()
            await _say(peer, frame.id, reply, body)
        return bool(x != EXIT_ON)


async def _say(peer: socket.socket, id_: int, message: Message, body: bytes = b"") -> None:
    data = b"".join(pack(KIND_OF[type(message)], id_, encode_header(message), body))
    await asyncio.get_running_loop().sock_sendall(peer, data)
