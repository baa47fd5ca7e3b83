"""One worker seen from the parent, with a process that is only a pair of descriptors."""

import asyncio
import os
import socket

import pytest

from gateway.errors import LoadError
from gateway.replica import Replica, ReplicaLimits, ReplicaState
from gateway.worker.messages import Load

LIMITS = ReplicaLimits(4, 1000, load_timeout_s=5, stuck_grace_s=1)
LOAD = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {})


class FakeWorker:
    """What a launcher returns; readable ``exited`` stands for an ended process."""

    pid = 4194305  # beyond the kernel's largest

    def __init__(self):
        self.channel, self.peer = socket.socketpair()
        self.channel.setblocking(False)
        self.exited, self._exit = os.pipe()
        self.killed = self.closed = False

    def kill(self):
        if not self.killed:
            self.killed = True
            os.close(self._exit)
            self.peer.close()

    def close(self):
        self.closed = True
        self.channel.close()
        os.close(self.exited)


class SlowLauncher:
    def __init__(self):
        self.gate, self.worker = asyncio.Event(), FakeWorker()

    async def launch(self):
        await self.gate.wait()
        return self.worker


async def test_a_worker_whose_replica_was_ended_while_it_was_started_is_ended_too():
    launcher, stopped = SlowLauncher(), []
    replica = Replica("m/1", launcher, LIMITS, stopped.append)
    starting = asyncio.ensure_future(replica.start(LOAD))
    await asyncio.sleep(0)
    replica.stop("retired")
    launcher.gate.set()
    with pytest.raises(LoadError, match="told to end"):
        await starting
    assert replica.state is ReplicaState.STOPPED
    assert stopped == [replica]
    assert launcher.worker.killed
    assert launcher.worker.closed
