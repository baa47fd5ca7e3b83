"""A node in memory: fake registry and gateway, a real store and a real SQLite ledger."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway.contract.catalogue import CatalogueVersion, VersionState
from gateway.system.files.damaged_files import DamagedFiles
from registry_sync.artifacts.environments.compatibility import MismatchPolicy
from registry_sync.artifacts.store import ArtifactStore
from registry_sync.domain.promotion_windows import PromotionWindows
from registry_sync.domain.signature_diff import SignaturePolicy
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.reconcile.build import ControlPlane, build
from registry_sync.reconcile.context import Limits, Policy, RoomLimits
from registry_sync.reconcile.operators import Operators
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.steps.ingestion import Ingestion
from registry_sync.reconcile.view.node_view import NodeView
from registry_sync.system.threads import Threads
from tests.fakes.environments import FakeEnvironments
from tests.fakes.gateway import FakeGateway
from tests.fakes.registry import FakeRegistry
from tests.fakes.waiting import becomes

_LEDGER_PATIENCE_S = 20.0
M = "churn"
A = "champion"


@dataclass
class NodeInMemory:
    """A node whose control plane can be started and killed."""

    folder: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    environments: FakeEnvironments = field(default_factory=FakeEnvironments)
    on_mismatch: MismatchPolicy = MismatchPolicy.WARN
    on_signature_change: SignaturePolicy = SignaturePolicy.WARN
    require_digest: bool = False
    stage_timeout_s: float = 30.0
    room: RoomLimits = field(default_factory=RoomLimits)
    disk_budget_bytes: int = 0
    ledger_url: str = ""
    clock: Callable[[], float] = time.time
    windows: PromotionWindows = ()
    plane: ControlPlane = field(init=False)
    """The control plane that runs, or ran last."""

    @classmethod
    def with_versions(cls, folder: Path, count: int) -> Self:
        """Make a node whose registry has so many versions of a model, its alias at the first."""
        made = cls(folder)
        for version in range(1, count + 1):
            made.registry.publish(M, version)
        made.registry.without_latest(M)
        made.registry.point(M, A, 1)
        return made

    @contextlib.asynccontextmanager
    async def control_plane(self, *, poll: bool = True) -> AsyncIterator[Reconciler]:
        """Run a control plane for the block; it ends as if killed: nothing is finished."""
        threads = Threads()
        store = ArtifactStore(self.folder, self.clock, budget_bytes=self.disk_budget_bytes)
        store.open()
        damaged_files = DamagedFiles(self.clock)
        holds_file = HoldsFile(self.folder / "holds.json")
        ledger = Ledger(
            self.ledger_url or f"sqlite:///{self.folder}/ledger.db",
            node_id="node",
            clock=self.clock,
            holds_file=holds_file,
        )
        self.plane = build(
            source=self.registry,
            intake=Ingestion(
                source=self.registry,
                fetcher=self.registry,
                store=store,
                require_digest=self.require_digest,
                clock=self.clock,
            ),
            store=store,
            ledger=ledger,
            target=self.gateway,
            threads=threads,
            environments=self.environments,
            policy=Policy(self.require_digest, self.on_mismatch, self.on_signature_change),
            boot_id=f"boot-{time.monotonic_ns()}",
            jitter=lambda: 0.0,
            limits=Limits(self.stage_timeout_s, self.room, self.windows),
            holds_file=holds_file,
            damaged_files=damaged_files,
            clock=self.clock,
        )
        spine = self.plane.reconciler
        running = asyncio.create_task(spine.run())
        try:
            await becomes(lambda: spine.observation.node or running.done(), "it observes")
            if poll:
                await spine.poll()
            yield spine
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert threads.close(timeout_s=10), "a thread outlives the control plane"
            ledger.close()

    @contextlib.asynccontextmanager
    async def following(self, *versions: int) -> AsyncIterator[Reconciler]:
        """Run a control plane for the block, once it has followed the alias through these."""
        async with self.control_plane() as spine:
            await self.serves(versions[0])
            for version in versions[1:]:
                await promoted(self, version)
            yield spine

    @contextlib.asynccontextmanager
    async def at_rest(self, version: int | None = None) -> AsyncIterator[Reconciler]:
        """Run a control plane that has nothing left to do, and follows the alias at a version."""
        async with self.following(version) if version else self.control_plane() as spine:
            await idle(spine)
            yield spine

    async def followed(self, *versions: int) -> None:
        """Have a control plane follow the alias through these versions, and be killed at rest."""
        async with self.following(*versions) as spine:
            await idle(spine)

    async def promotes(self, version: int) -> None:
        """Move the alias in the registry, and have that listed."""
        self.registry.point(M, A, version)
        await self.plane.reconciler.poll()

    @property
    def operators(self) -> Operators:
        """Who takes decisions of operators."""
        return self.plane.operators

    @property
    def view(self) -> NodeView:
        """What operators see."""
        return self.plane.view

    def break_ledger(self) -> bytes:
        """Leave a database that cannot be opened; what `mend_ledger` takes."""
        path = self.folder / "ledger.db"
        content = path.read_bytes()
        path.write_bytes(b"no database at all" * 100)
        return content

    def mend_ledger(self, content: bytes) -> None:
        """Put a database back in one step: an empty file would be made a ledger at once."""
        whole = self.folder / "ledger.whole"
        whole.write_bytes(content)
        whole.replace(self.folder / "ledger.db")

    @contextlib.contextmanager
    def refusing_ledger(self) -> Iterator[None]:
        """Let the database be read, and take nothing."""
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            refusals = {
                f"{verb}_{table}": f"BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"
                for (table,) in tables.fetchall()
                for verb in ("INSERT", "UPDATE", "DELETE")
                if not table.startswith("sqlite_")
            }
            for name, refusal in refusals.items():
                database.execute(f"CREATE TRIGGER no_{name} {refusal}")
            try:
                yield
            finally:
                for name in refusals:
                    database.execute(f"DROP TRIGGER no_{name}")

    @property
    def listed_at(self) -> float:
        """When the registry was listed, as the gateway knows it."""
        catalogue = self.gateway.catalogue
        return (catalogue.listed_at if catalogue else None) or 0.0

    def entry(self, version: int) -> CatalogueVersion:
        """Return a version's entry in the gateway's catalogue."""
        found = self.gateway.version(M, version)
        assert found is not None
        return found

    async def serves(self, version: int, alias: str = A) -> None:
        await becomes(
            lambda: self.gateway.points(M, alias) == version, f"@{alias} points at {version}"
        )

    async def settles_at(self, version: int) -> None:
        """Wait until the alias points at a version, and nothing is left to do."""
        await self.serves(version)
        await idle(self.plane.reconciler)

    async def stays_at(self, version: int) -> None:
        """Let everything happen that is due; the alias points at this version after it."""
        await idle(self.plane.reconciler)
        assert self.gateway.points(M, A) == version

    async def brings(self, version: int) -> None:
        """Have a caller wait for a version's bytes, and wait until they are here."""
        self.gateway.want(M, version)
        await self.shows(version, VersionState.AVAILABLE)

    async def shows(self, version: int, state: VersionState) -> None:
        def look() -> bool:
            entry = self.gateway.version(M, version)
            return entry is not None and entry.state is state

        await becomes(look, f"version {version} is shown as {state}")


async def ledger_answers(spine: Reconciler) -> None:
    """Wait until the ledger is asked again: one that was slow to refuse is left alone for a while.

    Nothing is decided anew for that: what the ledger did not take is the spine's to remember.

    Raises:
        AssertionError: It does not answer.
    """
    async with asyncio.timeout(_LEDGER_PATIENCE_S):
        while spine.journal.trouble is not None:
            await spine.next_decision()
            await asyncio.sleep(0.005)


async def idle(spine: Reconciler) -> None:
    """Wait until a decision has left nothing to do."""

    async def settled() -> bool:
        await spine.next_decision()
        return not spine.steps.busy

    while not await settled():
        pass


async def polled(spine: Reconciler, *, times: int = 1) -> None:
    """Have the registry listed, and everything done that comes of it; so many times."""
    for _ in range(times):
        await spine.poll()
        await idle(spine)


async def moved(node: NodeInMemory, version: int) -> None:
    """Move the alias in the registry, and let everything happen that this makes happen."""
    await node.promotes(version)
    await idle(node.plane.reconciler)


async def promoted(node: NodeInMemory, version: int) -> None:
    """Move the alias in the registry, and wait until it is followed and nothing is left to do."""
    await node.promotes(version)
    await node.settles_at(version)
