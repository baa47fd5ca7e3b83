"""A resident set whose workers are ideas, to see what it decides."""

import asyncio
import time
from typing import Any

from gateway.contract.references import ArtifactRef
from gateway.errors import LoadError, NotDeliveredError
from gateway.serving.replica.replica import ReplicaState
from gateway.serving.residency.decision import ResidentLimits
from gateway.serving.residency.replica_pool import ReplicaPool
from gateway.serving.residency.resident_set import ResidentSet
from gateway.worker.protocol.messages import Alive, Loaded

MIB = 1024 * 1024


def key(name, version=1):
    return ArtifactRef(name, version, "sha256:" + "a" * 64)


class FakeReplica:
    """A replica whose worker is an idea: it comes up when told, and ends at once."""

    def __init__(self, world, name, on_stopped):
        self.world, self.name, self.on_stopped = world, name, on_stopped
        self.state = ReplicaState.STARTING
        self.loaded = None
        self.private_bytes = 0
        self.answered = 0
        self.in_flight = 0
        self.probes = 0
        self.example_s = 0.0
        self.pace = 0.0
        self.end_reason = "by itself"
        self.stopped = asyncio.Event()
        world.workers.append(self)

    def expected_service_s(self, now):
        return self.pace

    decayed_service_s = expected_service_s

    def has_room(self, body_bytes):
        return True

    async def start(self, load):
        self.world.starts.append(self.name)
        await self.world.gate.wait()
        if self.state is ReplicaState.STOPPED:
            raise LoadError("worker_died", "killed while loading")
        if self.world.failures:
            failure = self.world.failures.pop(0)
            self.end()
            raise failure
        self.loaded = Loaded(1, {}, "passed", "alone", "", "pyfunc", "")
        self.private_bytes = self.world.sizes.get(self.name.split("/")[0], 10 * MIB)
        self.state = ReplicaState.READY
        return self.loaded

    async def probe(self, timeout_s):
        """Answer its example as the world wants it; note how many are asked at a time."""
        if self.state is not ReplicaState.READY:
            raise NotDeliveredError
        self.probes += 1
        self.world.probed.append(self)
        self.world.probed_at_once = max(self.world.probed_at_once, len(self.world.probed))
        await asyncio.sleep(self.world.probe_s)
        self.world.probed.remove(self)
        self.example_s = self.world.probe_s
        return Alive(self.private_bytes, *self.world.example(self))

    def end(self):
        if self.state is not ReplicaState.STOPPED:
            self.state = ReplicaState.STOPPED
            self.stopped.set()
            self.on_stopped(self)

    def stop(self, reason):
        self.end_reason = reason
        self.world.ends.append((self.name, reason))
        self.state = ReplicaState.DRAINING
        if self.world.lingering is None:
            asyncio.get_running_loop().call_soon(self.end)
        else:
            self.world.lingering.append(self)

    kill = stop

    async def wait_stopped(self):
        await self.stopped.wait()


class World:
    """A resident set of fakes, and levers.

    ``example``: whether a worker answers its example right, and what it says; ``lingering``:
    workers that were told to end, and do not before `let_go`; None: all end at once.
    """

    def __init__(self, count=2, megabytes=1000, load_budget_s=5.0, guess_megabytes=10):
        self.workers, self.starts, self.ends, self.failures = [], [], [], []
        self.sizes, self.told = {}, []
        self.lingering = None
        self.later = 0.0
        self.probe_s, self.probed, self.probed_at_once = 0.0, [], 0
        self.example = lambda replica: (True, "")
        self.gate = asyncio.Event()
        self.gate.set()
        self.set = ResidentSet(
            ReplicaPool(
                new_replica=self.new_replica,
                prepare=self.prepare,
                observer=self,
                clock=self.clock,
            ),
            limits=ResidentLimits(count, megabytes * MIB),
            load_budget_s=load_budget_s,
            max_waiting=100,
            requirements=self,
        )
        self.guess_megabytes = guess_megabytes
        self.asked_replicas, self.last, self.kept = {}, set(), set()
        self.unreachable = set()

    def timeout_s(self, key):
        return None

    def ends_when_idle(self, key):
        return False

    def clock(self):
        return time.monotonic() + self.later

    def new_replica(self, key, on_stopped) -> Any:
        return FakeReplica(self, str(key), on_stopped)

    async def prepare(self, key) -> Any:
        return None

    def estimate_bytes(self, key):
        return self.guess_megabytes * MIB

    def replicas(self, key):
        return self.asked_replicas.get(key.model, 1)

    def restarts(self, key):
        return key in self.last or key in self.kept

    def is_reachable(self, key):
        return key not in self.unreachable

    def keep_resident(self, key):
        return key in self.kept

    def loaded(self, key, seconds, resident_bytes):
        self.told.append(("loaded", key.model))

    def load_failed(self, key, failure, message):
        self.told.append(("load_failed", key.model, failure))

    def ended(self, key, reason, *, evicted, died):
        self.told.append(("ended", key.model, evicted))

    async def stage(self, key, replaces=None, swap="blue_green", replicas=1, stage_id="s1"):
        return await self.set.stage(
            key, stage_id, replaces=replaces, swap=swap, replicas=replicas, wait_s=5
        )

    def let_go(self):
        """Let those end that linger."""
        lingering, self.lingering = self.lingering, None
        for one in lingering or ():
            one.end()

    async def use(self, name):
        (await self.set.lease(key(name))).release()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # one turn of the loop each, no waiting
            await asyncio.sleep(0)


async def staging(world, version=2, swap="blue_green", replicas=1):
    """A stage of version 2 in place of version 1, under way."""
    task = asyncio.ensure_future(
        world.stage(key("a", version), replaces=key("a"), swap=swap, replicas=replicas)
    )
    await asyncio.sleep(0)
    return task
