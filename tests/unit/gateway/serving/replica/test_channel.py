"""Frames over a socket: whole, in order, and what never reached the peer is known."""

import asyncio
import errno
import socket
from typing import cast

from hypothesis import given, strategies as st

from gateway.serving.replica.channel import Channel
from gateway.worker.protocol.frames import MAX_BODY_BYTES, PREFIX, Frame, FrameReader, pack
from tests.fakes.waiting import becomes


def joined(kind, number, header, body=b""):
    return b"".join(pack(kind, number, header, body))


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=300)), max_size=8),
    st.lists(st.integers(1, 64), min_size=1, max_size=20),
)
def test_frames_survive_any_cutting(contents, cuts):
    stream = b"".join(joined(2, n, header, body) for n, (header, body) in enumerate(contents))
    reader, frames, at, step = FrameReader(), [], 0, 0
    while at < len(stream):
        size = cuts[step % len(cuts)]
        frames += reader.feed(stream[at : at + size])
        at, step = at + size, step + 1
    assert [(f.id, f.header, f.body) for f in frames] == [(n, *c) for n, c in enumerate(contents)]


class End:
    """A channel on one side of a socket pair; the other side is plain."""

    def __init__(self, buffer=None):
        self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        if buffer:
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.frames: list[Frame] = []
        self.closed = asyncio.Event()
        self.garbled: list[str] = []
        self.channel = Channel(self.ours, self.frames.append, self.closed.set, self.garbled.append)
        self.channel.open()

    def close(self):
        self.channel.close()
        self.ours.close()
        self.peer.close()


async def read_all(sock, count):
    loop, got = asyncio.get_running_loop(), b""
    sock.setblocking(False)
    while len(got) < count:
        got += await loop.sock_recv(sock, 1 << 16)
    return got


async def test_frames_of_one_step_leave_in_order():
    end = End()
    frames = [(2, n, b"{}", b"x" * n) for n in range(1, 200)]
    for frame in frames:
        end.channel.send(*frame)
    wanted = b"".join(joined(*frame) for frame in frames)
    assert await read_all(end.peer, len(wanted)) == wanted
    assert end.channel.unsent_ids() == set()
    end.close()


async def test_full_socket_loses_no_frame():
    end = End(buffer=4096)
    body = bytes(range(256)) * 4000
    for number in (1, 2, 3):
        end.channel.send(2, number, b"{}", body)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 3 in end.channel.unsent_ids()
    wanted = b"".join(joined(2, n, b"{}", body) for n in (1, 2, 3))
    assert await read_all(end.peer, len(wanted)) == wanted
    assert end.channel.unsent_ids() == set()
    end.close()


async def test_frames_that_a_dead_peer_never_got_are_known():
    end = End()
    end.peer.close()
    end.channel.send(2, 7, b"{}", b"body")
    await end.closed.wait()
    assert end.channel.unsent_ids() == {7}
    end.close()


async def test_last_frames_of_a_dead_peer_are_read():
    end = End()
    end.peer.sendall(joined(67, 1, b"{}", b"answer") + joined(67, 2, b"{}", b"half")[:-1])
    end.peer.close()
    end.channel.drain()
    assert [frame.body for frame in end.frames] == [b"answer"]
    assert end.closed.is_set()
    end.close()


async def test_invalid_frame_closes_the_channel():
    end = End()
    end.peer.sendall(PREFIX.pack(2, 0, MAX_BODY_BYTES + 1, 1))
    await end.closed.wait()
    assert not end.channel.is_open
    end.close()


class Odd:
    """A socket whose kernel has no memory, so many times."""

    def __init__(self, sock, times):
        self._socket, self.times = sock, times

    def fileno(self):
        return self._socket.fileno()

    def _fail(self):
        if self.times:
            self.times -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")

    def sendmsg(self, pieces):
        self._fail()
        return self._socket.sendmsg(pieces)

    def recv(self, count):
        self._fail()
        return self._socket.recv(count)


async def test_a_kernel_without_memory_costs_no_frame():
    end = End()
    odd = Odd(end.ours, 3)
    end.channel._socket = cast("socket.socket", odd)
    end.channel.send(2, 1, b"{}")
    wanted = joined(2, 1, b"{}")
    assert await read_all(end.peer, len(wanted)) == wanted
    odd.times = 3
    end.peer.send(joined(67, 1, b"{}"))
    await becomes(lambda: end.frames, "the frame has come")
    assert not end.closed.is_set()
    end.close()


async def test_reading_from_a_dead_peer_is_bounded():
    """A child of the worker has its socket, and never stops."""
    end = End()
    endless = Odd(end.ours, 0)
    endless.recv = lambda count: joined(67, 1, b"x" * 200) * 1000  # type: ignore[method-assign]
    end.channel._socket = cast("socket.socket", endless)
    end.channel.drain()
    assert end.closed.is_set()
    end.channel._loop.remove_reader(end.ours)
    end.close()
