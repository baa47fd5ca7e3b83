"""Random events of a registry and of its node: the real control plane, with the model beside it."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.contract.catalogue import VersionState
from gateway.contract.references import LATEST, AliasRef
from registry_sync.domain.operation_bodies import (
    PinRequest,
    QuarantineRequest,
    RollbackRequest,
    UnpinRequest,
)
from registry_sync.errors import SyncError
from registry_sync.operations.decisions.pinning import pin, unpin
from registry_sync.operations.decisions.quarantine import accept, read_quarantines
from registry_sync.operations.decisions.rollback import roll_back
from registry_sync.operations.errors import RefusedError
from registry_sync.planning.explain import explain
from registry_sync.reconcile.reconciler import Reconciler
from tests.contracts.registry_model import Alias, Model
from tests.fakes.callers import answer
from tests.fakes.nodes import NodeInMemory, idle, ledger_answers

MODELS = ("a", "b")
AWAY = ("c", "d")
VERSIONS = (1, 2)
ALIASES = ("champion", "prod")
ANCHOR = "anchor"
"""A model that stays, so that no listing is empty."""
IDLE_ROUNDS = 4
"""So often nothing is left to do before what was decided counts as carried out."""
BEGAN_AT = 1_700_000_000.0
LONG_S = 1000.0
"""Longer than anything that is waited for by the clock."""
LISTED_S = 0.01
"""No two listings come in one millisecond: two creations in a bucket are told apart by it."""
_FAST = Path("/dev/shm")

models = st.sampled_from(MODELS)
away = st.sampled_from(AWAY)
names = st.sampled_from((*MODELS, *AWAY))
versions = st.sampled_from(VERSIONS)
aliases = st.sampled_from(ALIASES)


class Machine(RuleBasedStateMachine):
    """Events, listings, operators and restarts; after each, what callers would be answered."""

    tally: ClassVar[Counter[str]] = Counter()
    forbidden: ClassVar[list[AssertionError]] = []
    """The failures of runs that did what the model forbids, oldest first."""

    # --- the node ---------------------------------------------------------------------------------

    @initialize(marks=st.booleans())
    def begin(self, marks: bool) -> None:
        self.loop = asyncio.new_event_loop()
        parent = str(_FAST) if _FAST.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="rg-", dir=parent))
        self.now = BEGAN_AT
        self.node = NodeInMemory(self.folder, clock=lambda: self.now)
        self.registry, self.gateway = self.node.registry, self.node.gateway
        self.registry.marks_creations = marks
        self.model = Model(marks)
        self.judged = 0
        self.named = set(MODELS)
        self.carries = False
        self.plane: AsyncExitStack | None = None
        self.spine: Reconciler
        self._register(ANCHOR, 1)
        for name in MODELS:
            self._register(name, 1)
            self.registry.point(name, ALIASES[0], 1)
        self._start()
        self.settle()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def _start(self) -> None:
        self.plane = AsyncExitStack()
        self.spine = self.run(self.plane.enter_async_context(self.node.control_plane(poll=False)))
        self.model.restarted()
        take = self.spine.listings.take

        def taken(listed: Any, asked_by: str) -> None:
            """What was done before a listing counts is judged by what counted then."""
            self.every_activation_was_allowed()
            take(listed, asked_by)
            self._note_listing()

        self.spine.listings.take = taken  # type: ignore[method-assign]

    def _stop(self) -> None:
        if self.plane is not None:
            self.run(self.plane.aclose())
            self.plane = None

    def teardown(self) -> None:
        failure = sys.exception()
        if isinstance(failure, AssertionError):
            self.forbidden.append(failure)
        if hasattr(self, "loop"):
            self._stop()
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _has(self, name: str, version: int) -> bool:
        known = self.registry.models.get(name)
        return known is not None and version in known.versions

    def _register(self, name: str, version: int) -> None:
        stamp = not self.model.marks
        self.now += 1.0
        self.registry.registered_at = self.now
        digest = self.registry.make_anew(name, version, stamp=stamp)
        self.registry.without_latest(name)
        self.model.made((name, version), digest, stamped=stamp)

    # --- the registry -----------------------------------------------------------------------------

    @rule(name=models, version=versions)
    def register(self, name: str, version: int) -> None:
        if not self._has(name, version):
            self._register(name, version)
            self.tally["registered"] += 1

    @rule(name=models, version=versions, alias=aliases)
    def move(self, name: str, version: int, alias: str) -> None:
        if self._has(name, version):
            self.registry.point(name, alias, version)

    @rule(name=models, alias=aliases)
    def remove_alias(self, name: str, alias: str) -> None:
        if alias in getattr(self.registry.models.get(name), "aliases", ()):
            self.registry.unpoint(name, alias)
            self.tally["alias removed"] += 1

    @rule(name=models, alias=aliases)
    def point_at_what_is_not_ready(self, name: str, alias: str) -> None:
        if name in self.registry.models:
            self.registry.unfollow(name, alias)

    @rule(name=models, version=versions)
    def delete_version(self, name: str, version: int) -> None:
        if self._has(name, version):
            self.registry.remove(name, version)
            self.tally["version deleted"] += 1

    @rule(name=models, seen=st.booleans(), bad=st.booleans())
    def delete_and_make_anew(self, name: str, seen: bool, bad: bool) -> None:
        """Delete a model, and register its versions anew; between, listings may see it gone."""
        known = self.registry.models.get(name)
        if known is None or not known.versions:
            return
        self.registry.forget(name)
        if seen:
            self.list_registry()
            self.list_registry()
        for version in sorted(known.versions):
            self._register(name, version)
        for alias, version in known.aliases.items():
            self.registry.point(name, alias, version)
        if bad and self.model.marks:  # stamped, with other bytes than the stamp's
            first = min(known.versions)
            self.stamp(name, first)
            self.alter(name, first)
        self.tally["made anew, seen" if seen else "made anew, unseen"] += 1

    @rule(name=names, to=names)
    def rename(self, name: str, to: str) -> None:
        """Give a model a name that is free, whether it was used before or not."""
        if name not in self.registry.models or to in self.registry.models:
            return
        self.tally["renamed"] += 1
        self.tally["renamed over a used name"] += to in self.named
        self.registry.rename(name, to)
        self.named.add(to)
        self.carries = True
        for version in self.registry.models[to].versions:
            digest = self.registry.digest(to, version)
            right = set() if self._is_spoiled(to, version) else {digest}
            self.model.renamed((name, version), to, right)

    @rule(name=away)
    def forget(self, name: str) -> None:
        if name in self.registry.models:
            self.registry.forget(name)

    @rule(name=models, version=versions)
    def stamp(self, name: str, version: int) -> None:
        readable = self._has(name, version) and not self._is_spoiled(name, version)
        if readable and self.model.marks:
            digest = self.registry.digest(name, version)
            self.registry.stamp(name, version, digest)
            self.model.stamped((name, version), digest)

    @rule(name=models, version=versions)
    def alter(self, name: str, version: int) -> None:
        """Alter bytes; where the manifest is the stamp, it is altered with them."""
        if self._has(name, version) and not self._is_spoiled(name, version):
            self.registry.tamper(name, version)
            self.model.altered((name, version), self._stamped_as_it_is(name, version))
            self.tally["altered"] += 1

    @rule(name=models, version=versions)
    def spoil(self, name: str, version: int) -> None:
        """Make bytes unreadable: nobody ever has a reason to believe in them."""
        if self._has(name, version):
            self.registry.spoil(name, version)
            self._stamped_as_it_is(name, version)
            self.tally["spoiled"] += 1

    def _is_spoiled(self, name: str, version: int) -> bool:
        return self.registry.is_spoiled(name, version)

    def _stamped_as_it_is(self, name: str, version: int) -> str:
        """Return the digest of the bytes; a manifest that lies beside them says the same."""
        digest = self.registry.digest(name, version)
        if not self.model.marks:
            self.registry.stamp(name, version, digest)
        return digest

    @rule(ends=st.booleans())
    def upload(self, ends: bool) -> None:
        """Whether registry and storage say that uploads are done; else bytes may still change."""
        self.registry.whole = self.registry.stable = ends

    # --- stories: what happens one after the other, more often than by chance ---------------------

    @rule(name=models, alias=aliases)
    def promote_wrong_bytes(self, name: str, alias: str) -> None:
        """Point an alias at a version of which nothing can be read."""
        highest = max(VERSIONS)
        if self._has(name, highest):
            self.delete_version(name, highest)
            self.list_registry()
            self.list_registry()
        self.register(name, highest)
        self.spoil(name, highest)
        self.move(name, highest, alias)
        self.list_registry()

    @rule(name=models, alias=aliases, elsewhere=st.booleans())
    def withdraw_and_wish(self, name: str, alias: str, elsewhere: bool) -> None:
        """Take an alias away, and have it again at what cannot be followed."""
        self.remove_alias(name, alias)
        self.list_registry()
        self.list_registry()
        if elsewhere:
            self.promote_wrong_bytes(name, alias)
        else:
            self.point_at_what_is_not_ready(name, alias)
            self.list_registry()

    @rule(name=models, version=versions)
    def alter_and_accept(self, name: str, version: int) -> None:
        """Have bytes found that were altered since they were accepted, and accept them."""
        self.call_by_number(name, version)
        self.alter(name, version)
        self.list_registry()
        self.call_by_number(name, version)
        self.accept()

    @rule(name=models, seen=st.booleans(), alters=st.booleans())
    def replace_by_rename(self, name: str, seen: bool, alters: bool) -> None:
        """Delete one model, and give another one its name; its bytes may be altered meanwhile."""
        other = MODELS[1 - MODELS.index(name)]
        if name not in self.registry.models:
            return
        self.list_registry()
        if other in self.registry.models:
            self.registry.forget(other)
        if seen:
            self.list_registry()
            self.list_registry()
        self.rename(name, other)
        for version in VERSIONS if alters else ():
            self.alter(other, version)
        self.list_registry()

    @rule(name=models, seen=st.booleans())
    def make_anew_while_the_ledger_refuses(self, name: str, seen: bool) -> None:
        """What a listing shows counts, whether or not it can be written."""
        if self.plane is None:
            return
        with self.node.refusing_ledger():
            self.delete_and_make_anew(name, seen, False)
            self.list_registry()
        self.run(ledger_answers(self.spine))
        self.let_time_pass(LONG_S)
        self.list_registry()
        self.tally["not written"] += 1

    @rule(name=models)
    @precondition(lambda self: self.plane is not None)
    def make_anew_with_wrong_bytes(self, name: str) -> None:
        """The successor can never serve: its predecessor goes on, by alias only."""
        self.settle()
        self.delete_and_make_anew(name, False, True)
        self.settle()

    # --- listings ---------------------------------------------------------------------------------

    @rule()
    def list_registry(self) -> None:
        """Have the registry listed, and everything done that follows from it at once."""
        if self.plane is None:
            return

        self.now += LISTED_S

        async def listed() -> None:
            await self.spine.poll()
            await idle(self.spine)

        self.run(listed())
        self._judge()

    def _note_listing(self) -> None:
        known = self.registry.models.values()
        present = {(one.name, number) for one in known for number in one.versions}
        pointing: dict[Alias, int] = {
            (one.name, alias): to
            for one in known
            for alias, to in one.aliases.items()
            if alias != LATEST
        }
        there = {(one.name, alias) for one in known for alias in one.unfollowed}
        pointing |= {alias: self.model.aliases.get(alias, 0) for alias in there - pointing.keys()}
        self.model.listed(pointing, present, set(self.gateway.active))

    @rule(seconds=st.sampled_from((0.5, 3.0, 30.0)))
    def let_time_pass(self, seconds: float) -> None:
        """Time enough to try again passes only here and where everything settles."""
        self.now += seconds
        self._look()

    @rule(name=models, version=versions)
    def call_by_number(self, name: str, version: int) -> None:
        if self.gateway.version(name, version) is not None:
            self.gateway.want(name, version)
            self._look()

    def _look(self) -> None:
        if self.plane is not None:
            self.spine.wake()
            self.run(idle(self.spine))
        self._judge()

    # --- operators --------------------------------------------------------------------------------

    @rule(frozen=st.booleans())
    def freeze(self, frozen: bool) -> None:
        if self.plane is not None:
            self.run(self.node.operators.freeze() if frozen else self.node.operators.unfreeze())
            self.model.frozen = frozen
            self._look()

    @rule(name=models, version=versions, alias=aliases)
    def pin(self, name: str, version: int, alias: str) -> None:
        request = PinRequest(model=name, alias=alias, version=version)

        async def pinned() -> None:
            if not (await pin(self.node.view, self.node.operators, request)).pinned:
                await self._until_idle()  # its bytes come first
                await pin(self.node.view, self.node.operators, request)

        self._decide((name, alias), pinned)

    @rule(name=models, alias=aliases)
    def roll_back(self, name: str, alias: str) -> None:
        request = RollbackRequest(model=name, alias=alias)
        self._decide((name, alias), lambda: roll_back(self.node.view, self.node.operators, request))

    def _decide(self, alias: Alias, decide: Callable[[], Awaitable[object]]) -> None:
        """Have an operator decide about an alias; what is held from then on was asked for."""
        if self.plane is None or alias not in self.gateway.active:
            return
        asked = self.model.asked.setdefault(alias, set())

        async def decided() -> None:
            try:
                await decide()
            except (RefusedError, SyncError):
                return
            await self._until_idle()
            self.tally["decided"] += 1

        operators = self.node.operators
        hold = operators.hold

        async def noting(made: Any) -> str | None:
            asked.add((made.target_version, made.target_digest))
            return await hold(made)

        operators.hold = noting  # type: ignore[method-assign,assignment]
        try:
            self.run(decided())
        finally:
            operators.hold = hold  # type: ignore[method-assign]
        self._note_holds()

    async def _until_idle(self) -> None:
        """Wait until nothing is left to do, though something may wait for its next try."""
        for _ in range(IDLE_ROUNDS):
            await idle(self.spine)

    def _note_holds(self) -> None:
        """Pinned aliases do not follow the registry, nor go with it."""
        holds = self.spine.journal.view.holds
        self.model.kept = {alias for alias, hold in holds.items() if hold.lasting}

    @rule(name=models, alias=aliases)
    def unpin(self, name: str, alias: str) -> None:
        if self.plane is None or (name, alias) not in self.spine.journal.view.holds:
            return
        self.run(unpin(self.node.view, self.node.operators, UnpinRequest(model=name, alias=alias)))
        self._note_holds()
        self._look()

    @rule()
    def accept(self) -> None:
        """Have an operator accept what was found altered, if it can be."""
        if self.plane is None:
            return
        for one in read_quarantines(self.node.view).quarantines:
            there = self._has(one.model, one.version)
            if one.incident != "altered" or one.found_digest is None or not there:
                continue
            accepted = (one.model, one.version), one.found_digest
            is_news = not self.model.may_answer_number(*accepted)
            if not self._is_spoiled(one.model, one.version):
                self.model.accepted(*accepted)
            outcome = self.run(self._accept(one.model, one.version))
            if outcome == "refused" and is_news:
                self.model.refused(*accepted)
            self.tally[f"accepted: {outcome}"] += 1
            self._look()
            return

    async def _accept(self, model: str, version: int) -> str:
        try:
            accept(
                self.node.view, self.node.operators, QuarantineRequest(model=model, version=version)
            )
        except RefusedError:
            return "refused"
        await self._until_idle()
        if (model, version) not in self.spine.journal.view.quarantines:
            return "accepted"
        return "pending" if self.node.view.doing(model) else "refused"

    # --- what is lost -----------------------------------------------------------------------------

    @rule(lose_ledger=st.booleans())
    def restart_control_plane(self, lose_ledger: bool) -> None:
        self._stop()
        if lose_ledger:
            for path in self.folder.glob("ledger.db*"):
                path.unlink()
            self.model.lost_ledger()
            self.tally["ledger lost"] += 1
        self._start()

    @rule(name=models, anew=st.booleans())
    def restart_as_of_an_older_release(self, name: str, anew: bool) -> None:
        """Start with records that do not say whose bytes they are about.

        Such a release carried no accepted bytes under another name, so none may have been carried.
        """
        if self.plane is None or not self.model.marks or self.carries:
            return
        self.list_registry()
        pins = self.spine.journal.view.accepted
        for accepted in pins.values():
            if not accepted.superseded:  # which such a release never learned
                self.spine.ledger.accept(replace(accepted, creation=None))
        for artifact in self.spine.store.all().values():
            for kept in artifact.accepted:
                known = pins.get((kept.model, kept.version))
                if known is not None and known.creation == kept.creation and not known.superseded:
                    self.spine.store.accept(artifact.digest, replace(kept, creation=None))
        if anew:
            self.delete_and_make_anew(name, seen=False, bad=False)
        self.restart_control_plane(lose_ledger=False)
        self.list_registry()
        self.tally["without marks"] += 1

    @rule(lose_table=st.booleans())
    def restart_gateway(self, lose_table: bool) -> None:
        catalogue = self.gateway.catalogue  # which a gateway keeps on its disk
        self.gateway.restart(lose_table=lose_table)
        self.gateway.catalogue = catalogue
        self.tally["table lost"] += lose_table
        self._look()

    # --- what must be true ------------------------------------------------------------------------

    def _judge(self) -> None:
        self.every_activation_was_allowed()
        self.every_number_means_the_bytes_of_its_version()

    @invariant()
    def every_activation_was_allowed(self) -> None:
        if not hasattr(self, "judged"):
            return
        for one in self.gateway.activations[self.judged :]:
            why = self.model.activated(one)
            assert why is None, (why, one)
            self.tally[f"activated by {one.asked_by}"] += 1
        self.judged = len(self.gateway.activations)

    @invariant()
    def counts_as_a_step(self) -> None:
        self.tally["steps"] += 1

    @invariant()
    def every_number_means_the_bytes_of_its_version(self) -> None:
        if not hasattr(self, "judged"):
            return
        for name in (*MODELS, *AWAY):
            for version in VERSIONS:
                found = answer(self.gateway, name, str(version))
                if not found.startswith("sha256:"):
                    continue
                assert self.model.may_answer_number((name, version), found), (name, version, found)
                self.model.saw((name, version), found)

    @rule()
    @precondition(lambda self: self.plane is not None)
    def settle(self) -> None:
        """Let everything be done that is to be done; then every alias is where it ought to be."""
        self.upload(ends=True)
        for _ in range(3):
            self.now += LONG_S
            self.list_registry()
        self.tally["settled"] += 1
        view = self.spine.journal.view
        for (name, alias), version in self.model.aliases.items():
            if self.model.frozen or (name, alias) in view.holds or not self._has(name, version):
                continue
            if self.registry.models[name].aliases.get(alias) != version:
                continue  # it is at a version that is not ready
            if (name, version) in self.model.doubtful:
                continue
            digest = self.registry.digest(name, version)
            stamp = self.registry.version(name, version).expected_digest
            active = self.gateway.active.get(AliasRef(name, alias))
            if stamp in (None, digest) and self.model.may_answer_number((name, version), digest):
                assert active is not None, (name, alias, version)
                assert (active.version, active.digest) == (version, digest), (active, digest)
                self.tally["follows"] += 1
            elif active is None or active.version != version:
                entry = self.gateway.version(name, version)
                assert entry is not None
                assert entry.state is VersionState.QUARANTINED, entry
                self.tally["quarantined"] += 1
            elif not self.model.may_answer_number((name, version), active.digest):
                told = explain(self.spine.look(name), name, alias, active)
                # Also where a renamed model was altered: its successor's bytes are wrong then.
                assert "made anew" in told.reason or "were altered" in told.reason, told
                self.tally["serves its predecessor"] += 1
        for alias_of, active in self.gateway.active.items():
            if active.alias != LATEST and not self.model.frozen and alias_of not in view.holds:
                assert alias_of in self.model.aliases, f"{alias_of} was taken away"
