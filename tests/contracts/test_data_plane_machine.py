"""Random operations on a whole data plane: the same machine on fake and on real workers.

At any time: no lease on a stopped replica, no leased replica ended, no more workers and bytes than
allowed. In the end: every caller answered, once, by a version that it meant; nothing is left. On
the fake workers each decision is compared with the one that was made before it was one function.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gateway.contract.references import ArtifactRef
from gateway.serving.replica.launcher import ForkserverLauncher, Launcher, Launchers
from gateway.serving.residency import decision, load_queue
from gateway.worker.protocol.messages import Load
from tests.contracts import former_eviction
from tests.contracts.data_plane import (
    ALIAS,
    MODELS,
    VERSIONS,
    DataPlane,
    LoopErrors,
    Terms,
)
from tests.fakes.worker import EXIT_ON, HANG_ON, FakeLauncher
from tests.integration.worker_process import store
from tests.models.catalogue import ScriptedModel

MIB = 1024 * 1024
SOAK = os.environ.get("REGISTRY_GATEWAY_SOAK", "") not in {"", "0"}

models = st.sampled_from(MODELS)
versions = st.sampled_from(VERSIONS)
selectors = st.sampled_from([*(str(version) for version in VERSIONS), f"@{ALIAS}", f"@{ALIAS}"])
some = st.integers(0, 99)
whole = st.booleans()


class Machine(RuleBasedStateMachine):
    """The operations. A subclass says on which workers."""

    pause_s: ClassVar[float] = 0.0
    tally: ClassVar[Counter[str]]

    def build(self, folder: Path) -> DataPlane:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors = LoopErrors()
        self.loop.set_exception_handler(self.errors)
        self.folder = Path(tempfile.mkdtemp())
        self.plane = self.run(self._build())
        for model in MODELS:
            self.do(self.plane.promote, model, VERSIONS[0])

    async def _build(self) -> DataPlane:
        return self.build(self.folder)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def do(self, action: Any, *arguments: Any) -> None:
        async def done() -> None:
            action(*arguments)
            await asyncio.sleep(self.pause_s)

        self.run(done())

    @rule(
        model=models, selector=selectors, x=st.integers(1, 99), count=st.integers(1, 5), whole=whole
    )
    def request(self, model: str, selector: str, x: int, count: int, *, whole: bool) -> None:
        for number in range(count):
            self.do(self._ask, model, selector, float(x + number), whole)

    @rule(model=models, selector=selectors, whole=whole)
    def request_that_times_out(self, model: str, selector: str, *, whole: bool) -> None:
        self.do(self._ask, model, selector, HANG_ON, whole)

    @rule(model=models, selector=selectors, whole=whole)
    def request_that_kills_its_worker(self, model: str, selector: str, *, whole: bool) -> None:
        self.do(self._ask, model, selector, EXIT_ON, whole)

    def _ask(self, model: str, selector: str, x: float, whole: bool) -> None:
        self.plane.ask(model, selector, x, whole=whole)

    @rule(number=some)
    def hang_up(self, number: int) -> None:
        self.do(self.plane.hang_up, number)

    @rule(model=models, version=versions)
    def swap(self, model: str, version: int) -> None:
        self.do(self.plane.promote, model, version)

    @rule(model=models)
    def roll_back(self, model: str) -> None:
        self.do(self.plane.roll_back, model)

    @rule(model=models, version=versions)
    def evict(self, model: str, version: int) -> None:
        key = ArtifactRef(model, version, self.plane.digests(version))
        self.do(self.plane.residents.retire, key, "retired")

    @rule(model=models, version=versions)
    def load(self, model: str, version: int) -> None:
        key = ArtifactRef(model, version, self.plane.digests(version))
        self.do(self.plane.residents.load_in_background, [key])

    @rule(number=some)
    def kill(self, number: int) -> None:
        self.do(self._kill, number)

    def _kill(self, number: int) -> None:
        if workers := self.plane.workers():
            worker = workers[number % len(workers)].replica._worker
            assert worker is not None
            worker.kill()

    @rule(number=some, mebibytes=st.integers(1, 40))
    def grow(self, number: int, mebibytes: int) -> None:
        self.do(self.plane.grow, number, mebibytes * MIB)

    @rule(milliseconds=st.integers(0, 30))
    def breathe(self, milliseconds: int) -> None:
        self.run(asyncio.sleep(milliseconds / 1000))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "plane"):
            self.plane.check()
            assert not self.errors.seen, self.errors.seen

    def teardown(self) -> None:
        if not hasattr(self, "plane"):
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self.loop.close)
            stack.callback(shutil.rmtree, self.folder)
            stack.callback(self.after)
            self.before_the_end()
            self.run(self.plane.finish())
            assert not self.errors.seen, self.errors.seen
            self.tally.update(self.plane.tally)

    def before_the_end(self) -> None:
        """Take back what would fail from now on."""

    def after(self) -> None:
        """Release what the subclass holds."""


class FakeMachine(Machine):
    """On workers without a process."""

    def build(self, folder: Path) -> DataPlane:
        self.descriptors = len(list(Path("/proc/self/fd").iterdir()))
        self.launcher = FakeLauncher(_bytes_of)
        terms = Terms(
            workers=3,
            room_bytes=39 * MIB,
            version_bytes=_bytes_of,
            request_timeout_s=0.05,
            stuck_grace_s=0.05,
            load_budget_s=1.0,
        )
        return DataPlane(folder, self.launcher, terms, _fake_order)

    @rule()
    def fail_the_next_load(self) -> None:
        self.launcher.failures = 1

    @invariant()
    def no_more_processes_than_allowed(self) -> None:
        if hasattr(self, "launcher"):
            assert self.launcher.alive() <= self.plane.terms.workers

    def before_the_end(self) -> None:
        self.launcher.failures = 0

    def after(self) -> None:
        self.run(asyncio.sleep(0.01))
        assert self.launcher.alive() == 0
        assert len(list(Path("/proc/self/fd").iterdir())) == self.descriptors


def _bytes_of(version: int) -> int:
    """5, 10 or 20 MiB: the room in bytes is as often too small as that in number."""
    return 5 * MIB << (version - 1)


def _fake_order(key: ArtifactRef) -> Load:
    return Load(key.model, key.version, key.digest, "/nowhere", "/nowhere", {})


class RealMachine(Machine):
    """On processes, forked from a real forkserver, with models that were saved by MLflow."""

    pause_s = 0.1
    orders: ClassVar[dict[int, Load]] = {}
    launcher: ClassVar[Launcher]
    forkserver: ClassVar[ForkserverLauncher]

    def build(self, folder: Path) -> DataPlane:
        terms = Terms(
            workers=3,
            room_bytes=1600 * MIB,
            version_bytes=lambda version: 400 * MIB,
            request_timeout_s=0.5,
            stuck_grace_s=0.5,
            load_budget_s=15.0,
        )
        return DataPlane(folder, self.launcher, terms, self._order, lambda v: self.orders[v].digest)

    def before_the_end(self) -> None:
        """Do, in every run, what there may have been no time for."""
        self.do(self.plane.promote, MODELS[2], VERSIONS[1])
        self.do(self.plane.ask, MODELS[0], f"@{ALIAS}", HANG_ON)
        self.do(self.plane.ask, MODELS[1], f"@{ALIAS}", EXIT_ON)
        self.do(self._kill, 0)

    def after(self) -> None:
        """Let a launch whose load was given up end: its worker is discarded on this loop."""

        async def launched() -> None:
            await self.loop.run_in_executor(self.forkserver._thread, int)

        self.run(launched())
        self.run(asyncio.sleep(0))

    def _order(self, key: ArtifactRef) -> Load:
        return replace(self.orders[key.version], model=key.model, version=key.version)


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # To shrink what depends on time takes minutes and rarely ends smaller.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        print_blob=True,
    )


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give who waits its turn soon."""
    monkeypatch.setattr(decision, "TURN_WAIT_S", 0.05)


FAKE_RUNS, FAKE_STEPS = (2000, 100) if SOAK else (20, 50)
REAL_RUNS, REAL_STEPS = (40, 50) if SOAK else (2, 20)
MOST_GAMES = 4
"""Hypothesis leaves some operations out of a run: a short game may lack one of them altogether."""
HAPPENS = {
    *("answered", "deadline_exceeded", "worker_died", "hung_up"),
    *("loaded", "evicted", "ended", "swapped", "grown"),
}
HAPPENS_SOON = {"answered", "deadline_exceeded", "worker_died", "loaded", "ended", "swapped"}
"""On real processes there are few steps, and mostly room for all."""


def _play(machine: type[Machine], runs: int, steps: int, happens: set[str]) -> None:
    """Let it play; see that everything that was to be tried has happened."""
    machine.tally, missing = Counter(), happens
    for _ in range(MOST_GAMES):
        run_state_machine_as_test(machine, settings=_settings(runs, steps))
        missing = {what for what in happens if not machine.tally[what]}
        if not missing:
            break
    print(dict(machine.tally))
    assert missing == set()


@pytest.mark.usefixtures("soon")
def test_random_operations_make_room_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: Counter[str] = Counter()

    def decide(seen: decision.Snapshot) -> tuple[decision.Action, ...]:
        actions = decision.decide(seen)
        compared[former_eviction.check(seen, actions)] += 1
        return actions

    monkeypatch.setattr(load_queue, "decide", decide)
    _play(FakeMachine, FAKE_RUNS, FAKE_STEPS, HAPPENS)
    print(dict(compared))
    assert {what for what in ("start", "evict", "wait") if not compared[what]} == set()


@pytest.fixture(scope="module")
def real_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Three versions in a store, and a forkserver."""
    RealMachine.orders = {}
    for version in VERSIONS:
        model = ScriptedModel(scale=float(version), hang_on=HANG_ON, exit_on=EXIT_ON)
        folder = tmp_path_factory.mktemp(f"v{version}")
        RealMachine.orders[version] = store(model, folder)
    RealMachine.forkserver = forkserver = ForkserverLauncher()
    RealMachine.launcher = Launchers(forkserver, None)  # type: ignore[arg-type]  # no own ones
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: asyncio.run(forkserver.close()))
        first = asyncio.run(forkserver.launch())  # it comes when the forkserver has its imports
        first.kill()
        first.close()
        yield


@pytest.mark.usefixtures("soon", "real_workers")
def test_random_operations_on_real_processes() -> None:
    _play(RealMachine, REAL_RUNS, REAL_STEPS, HAPPENS if SOAK else HAPPENS_SOON)
