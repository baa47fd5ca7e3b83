"""History and verdicts of this node in SQL. What the gateway serves is not decided here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, bindparam, delete, func, select, update

from registry_sync.domain import (
    LIVE_FAILURE,
    OWN_FAILURE,
    Activation,
    AskedBy,
    Aspired,
    AspiredModel,
    Attempt,
    Decision,
    Freeze,
    Hold,
    LedgerView,
    PinChange,
    PinnedVersion,
    Quarantine,
    Rejection,
    Rollback,
    Standing,
    StandingChange,
    ends_by_operator,
)
from registry_sync.errors import LedgerError
from registry_sync.ledger.database import Database, LedgerSetupError
from registry_sync.ledger.holds_file import DamagedHoldsError, HoldsFile
from registry_sync.ledger.rows import (
    activation_of,
    activation_values,
    attempt_of,
    attempt_values,
    decisions_of_freeze,
    decisions_of_hold,
    decisions_of_quarantine,
    decisions_of_rejection,
    freeze_of,
    freeze_values,
    hold_of,
    hold_values,
    listed_model_of,
    listed_model_values,
    listing_of,
    listing_values,
    pin_of,
    pin_values,
    quarantine_of,
    quarantine_values,
    rejection_of,
    rejection_values,
)
from registry_sync.ledger.scoped_tables import NodeTable, StandingTable
from registry_sync.ledger.tables import (
    activations,
    attempts,
    freezes,
    holds,
    listed_models,
    listings,
    pins,
    quarantines,
    rejections,
)

_KEPT_ACTIVATIONS = 200
_KEPT_ATTEMPTS = 500
_KEPT_RETIRED_ALIASES = 500
_KEPT_GONE_PINS = 500
_KEPT_GONE_VERDICTS = 500
_KEPT_GONE_MODELS = 500
_OF_ONE_MOVE = ("model", "alias", "version", "at", "generation")
"""The columns by which a move is known to be recorded already."""


class Ledger:
    """The ledger of one node. Blocking: call from a thread; any thread may. `close` releases it.

    Every method raises `LedgerError` when the database does not take or give what is asked.
    """

    def __init__(
        self,
        url: str,
        *,
        node_id: str,
        clock: Callable[[], float],
        holds_file: HoldsFile | None = None,
    ) -> None:
        """Store. ``clock`` gives epoch seconds; ``holds_file`` keeps a copy of standing holds."""
        self._database = Database(url)
        self._clock = clock
        self._holds_file = holds_file
        self._copy_is_due = False
        self._pins = NodeTable(pins, node_id)
        self._quarantines = StandingTable(quarantines, node_id, clock)
        self._rejections = StandingTable(rejections, node_id, clock)
        self._holds = StandingTable(holds, node_id, clock)
        self._freezes = StandingTable(freezes, node_id, clock)
        self._activations = NodeTable(activations, node_id)
        self._attempts = NodeTable(attempts, node_id)
        self._listings = NodeTable(listings, node_id)
        self._listed_models = NodeTable(listed_models, node_id)

    # --- open and close ---------------------------------------------------------------------------

    def ensure(self) -> bool:
        """Make the ledger usable, and say whether it had to be made or migrated."""
        made = self._database.ensure(self._restore_holds)
        if self._copy_is_due:
            with contextlib.suppress(LedgerError), self._database.transaction() as connection:
                self._copy_standing(connection)
        return made

    def open(self) -> None:
        """Open the ledger at the start of the process; a database that is down may come later.

        Raises:
            LedgerSetupError: No waiting helps: this process must not begin.
        """
        try:
            self.ensure()
        except LedgerSetupError:
            raise
        except LedgerError:
            return

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    @property
    def is_migrating(self) -> bool:
        """Whether it is being made or migrated now, which may take long."""
        return self._database.is_migrating

    def leave(self) -> Callable[[], None]:
        """Let a thread that waits for an answer have an error, and begin anew with `ensure`.

        What the thread was writing may be written or not; `ensure` waits until that is so.

        Returns:
            What that thread is to call at last.
        """
        left, self._database = self._database, self._database.leave()
        self._copy_is_due = True
        return left.close

    # --- what counts now --------------------------------------------------------------------------

    def view(self) -> LedgerView:
        """Return what counts now."""
        return self._view(None)

    def view_of(self, models: AbstractSet[str]) -> LedgerView:
        """Return what counts now of some models; without the freeze, which is no model's."""
        return self._view(models)

    def _view(self, models: AbstractSet[str] | None) -> LedgerView:
        of_models = _of_models(models)
        wrong = self._quarantines.standing().order_by(quarantines.c.id)
        with self._database.transaction() as connection:
            pinned = connection.execute(of_models(self._pins.select(), pins)).all()
            quarantined = connection.execute(of_models(wrong, quarantines)).all()
            refused = connection.execute(of_models(self._rejections.standing(), rejections)).all()
            active = connection.execute(of_models(self._last_activations(models), activations))
            last = active.all()
            gone_back = self._holds.select(asked_by=str(AskedBy.RULE))
            by_rule = connection.execute(of_models(gone_back, holds)).all()
            held = connection.execute(of_models(self._holds.standing(), holds)).all()
            frozen = None if models is not None else self._frozen(connection)
        return LedgerView(
            pins={(row.model, row.version): pin_of(row) for row in pinned},
            quarantines={(row.model, row.version): quarantine_of(row) for row in quarantined},
            rejections={(row.model, row.version, row.digest): rejection_of(row) for row in refused},
            holds={(row.model, row.alias): hold_of(row) for row in held},
            last_active={(row.model, row.alias): activation_of(row) for row in last},
            freeze=frozen,
            went_back=frozenset((row.model, row.alias, row.at) for row in by_rule),
        )

    def _last_activations(self, models: AbstractSet[str] | None = None) -> Select[Any]:
        """Return the query for the newest activation of each alias, of some models or of all."""
        newest = _of_models(models)(select(func.max(activations.c.id)), activations)
        newest = newest.where(self._activations.mine())
        grouped = newest.group_by(activations.c.model, activations.c.alias)
        return select(activations).where(activations.c.id.in_(grouped))

    def _frozen(self, connection: Connection) -> Freeze | None:
        found = connection.execute(self._freezes.standing()).one_or_none()
        return freeze_of(found) if found else None

    def _standing(self, connection: Connection) -> Standing:
        """Return what operators keep."""
        held = connection.execute(self._holds.standing())
        return Standing(holds=tuple(hold_of(row) for row in held), freeze=self._frozen(connection))

    # --- bytes and verdicts -----------------------------------------------------------------------

    def pin(self, pin: PinnedVersion) -> None:
        """Record the bytes that were accepted for a version; replaces what was pinned before."""
        with self._database.transaction() as connection:
            self._pins.replace(connection, pin_values(pin, at=self._clock()), "model", "version")

    def note_pins(self, changes: Sequence[PinChange]) -> None:
        """Record what was learned of accepted bytes; what was accepted meanwhile stays."""
        now = self._clock()
        with self._database.transaction() as connection:
            for before, after in ((one.before, one.after) for one in changes):
                row = pin_values(after, at=now)
                key = {"model": after.model, "version": after.version}
                if before is not None:
                    known = {"digest": before.digest, "creation": before.creation}
                    same, was = self._pins.mine(**key, **known), pin_values(before, at=now)
                    news = {name: value for name, value in row.items() if value != was[name]}
                    connection.execute(update(pins).where(same).values(**news))
                elif connection.execute(self._pins.select(**key)).first() is None:
                    self._pins.add(connection, row)

    def quarantine(self, found: Quarantine) -> None:
        """Record wrong bytes; what was recorded of this version before is released by it."""
        with self._database.transaction() as connection:
            self._quarantines.release(connection, model=found.model, version=found.version)
            self._quarantines.add(connection, quarantine_values(found))

    def release_quarantine(self, model: str, version: int, released_by: str | None = None) -> bool:
        """Let a version be tried again; whether there was something to release."""
        with self._database.transaction() as connection:
            return self._quarantines.release(
                connection, model=model, version=version, released_by=released_by
            )

    def reject(self, found: Rejection) -> None:
        """Record a version that no alias may follow with these bytes."""
        with self._database.transaction() as connection:
            self._reject(connection, found)

    def _reject(self, connection: Connection, found: Rejection) -> None:
        self._rejections.release(
            connection, model=found.model, version=found.version, digest=found.digest
        )
        self._rejections.add(connection, rejection_values(found))

    def release_rejection(
        self,
        model: str,
        version: int,
        digest: str | None = None,
        *,
        released_by: str = AskedBy.POLL,
    ) -> bool:
        """Let aliases follow a version again; whether there was something to release.

        ``digest`` None: whatever its bytes are.
        """
        of = _given(model=model, version=version, digest=digest)
        with self._database.transaction() as connection:
            return self._rejections.release(connection, released_by=released_by, **of)

    # --- what operators keep ----------------------------------------------------------------------

    def hold(self, hold: Hold, *, at: float | None = None) -> None:
        """Hold an alias; an older hold of it ends ``at`` these epoch seconds, or now if None."""
        with self._database.transaction() as connection:
            self._hold(connection, hold, at)
            self._copy_standing(connection)

    def _hold(self, connection: Connection, hold: Hold, at: float | None) -> None:
        self._holds.release(connection, released_at=at, **_alias_of(hold))
        self._holds.add(connection, hold_values(hold))

    def note_aspired(self, hold: Hold, version: int, creation: str | None = None) -> bool:
        """Note where the registry's alias points, of a hold that was made while nobody knew."""
        of_this = self._holds.mine(released_at=None, **_identity(hold), aspired_version=None)
        known = {"aspired_version": version, "aspired_creation": creation}
        with self._database.transaction() as connection:
            noted = connection.execute(update(holds).where(of_this).values(**known))
            self._copy_standing(connection)
        return noted.rowcount > 0

    def release_hold(
        self, hold: Hold, released_by: str = AskedBy.POLL, *, at: float | None = None
    ) -> bool:
        """Let an alias follow the registry again if it is this that holds it; whether it is.

        An operator who ends what the rule began lets the version try again.
        """
        with self._database.transaction() as connection:
            released = self._release_hold(connection, hold, released_by, at)
            self._copy_standing(connection)
        return released

    def _release_hold(
        self, connection: Connection, hold: Hold, released_by: str, at: float | None
    ) -> bool:
        released = self._holds.release(
            connection, released_by=released_by, released_at=at, **_identity(hold)
        )
        if released and ends_by_operator(hold, released_by):
            for failure in (LIVE_FAILURE, f"{OWN_FAILURE}{LIVE_FAILURE}"):
                self._rejections.release(
                    connection,
                    model=hold.model,
                    version=hold.aspired_version,
                    failure=failure,
                )
        return released

    def rolled_back(self, done: Rollback) -> bool:
        """Record what the gateway did by rule; whether that was news.

        An operator's hold stays: whoever made it has decided about the alias.
        """
        hold = done.hold
        by_rule = {**_alias_of(hold), "at": hold.at, "asked_by": str(hold.asked_by)}
        with self._database.transaction() as connection:
            if connection.execute(self._holds.select(**by_rule)).first() is not None:
                return False
            self._activations.add(connection, activation_values(done.activation))
            self._reject(connection, done.rejection)
            standing = connection.execute(self._holds.select(released_at=None, **_alias_of(hold)))
            row = standing.one_or_none()
            if row is not None and row.asked_by != AskedBy.RULE:
                over = {"released_at": self._clock()}
                self._holds.add(connection, {**hold_values(hold), **over})
            else:
                self._holds.release(connection, **_alias_of(hold))
                self._holds.add(connection, hold_values(hold))
            self._copy_standing(connection)
        return True

    def freeze(self, freeze: Freeze) -> None:
        """Let no alias of this node follow the registry; one that is frozen stays so."""
        with self._database.transaction() as connection:
            if connection.execute(self._freezes.standing()).first() is None:
                self._freezes.add(connection, freeze_values(freeze))
            self._copy_standing(connection)

    def unfreeze(self, released_by: str) -> None:
        """Let the aliases of this node follow the registry again."""
        with self._database.transaction() as connection:
            self._freezes.release(connection, released_by=released_by)
            self._copy_standing(connection)

    def record(self, change: StandingChange, *, late: bool) -> None:
        """Record a decision that is in force; ``late``: it could not be recorded in its time.

        It may have been all the same. A newer one about the same alias, or the node, wins over one
        that is late; both are history.
        """
        if late:
            self._record_late(change)
        elif change.hold is None:
            if change.what == "freeze":
                self.freeze(Freeze(change.asked_by, change.at))
            else:
                self.unfreeze(change.asked_by)
        elif change.what == "hold":
            self.hold(change.hold, at=change.at)
        else:
            self.release_hold(change.hold, change.asked_by, at=change.at)

    def _record_late(self, change: StandingChange) -> None:
        with self._database.transaction() as connection:
            if change.hold is None:
                self._freeze_late(connection, change)
            elif change.what == "hold":
                self._hold_late(connection, change, change.hold)
            elif not self._release_hold(connection, change.hold, change.asked_by, change.at):
                of_it = _identity(change.hold)
                by, at = change.asked_by, change.at
                self._holds.sign(connection, released_by=by, released_at=at, **of_it)
            self._copy_standing(connection)

    def _hold_late(self, connection: Connection, change: StandingChange, hold: Hold) -> None:
        this = self._holds.select(**_identity(hold))
        if connection.execute(this).first() is not None:
            return  # it was written: only the answer was lost
        changed_at = self._holds.changed_at(connection, **_alias_of(hold))
        if changed_at is not None and changed_at > change.at:
            self._holds.add(connection, {**hold_values(hold), "released_at": changed_at})
            return
        self._hold(connection, hold, change.at)

    def _freeze_late(self, connection: Connection, change: StandingChange) -> None:
        standing = connection.execute(self._freezes.standing()).first()
        if change.what == "unfreeze":
            if standing is not None and standing.at <= change.at:
                by, at = change.asked_by, change.at
                self._freezes.release(connection, released_by=by, released_at=at)
            return
        freeze = freeze_values(Freeze(change.asked_by, change.at))
        same = self._freezes.select(at=change.at)
        if standing is not None or connection.execute(same).first() is not None:
            return
        changed_at = self._freezes.changed_at(connection)
        is_over = changed_at is not None and changed_at > change.at
        self._freezes.add(connection, {**freeze, "released_at": changed_at if is_over else None})

    def _copy_standing(self, connection: Connection) -> None:
        """Write what stands into the file before it is kept; or with the next `ensure`.

        A disk that refuses the copy refuses no decision: what it costs is told until it is there.
        """
        if self._holds_file is not None:
            try:
                self._holds_file.copy(self._standing(connection))
            except LedgerError:
                self._copy_is_due = True
            else:
                self._copy_is_due = False

    def _restore_holds(self) -> None:
        """Take what stands in the file into a ledger that has no history: it was lost."""
        if self._holds_file is None:
            return
        with self._database.transaction() as connection:
            tables = (self._holds, self._activations, self._freezes)
            if any(connection.execute(table.newest(1)).first() is not None for table in tables):
                if not self._copy_is_due:  # of a write that was left, it may say what was not kept
                    self._mend_copy(connection, self._holds_file)
                return
            standing = self._standing_in_file(self._holds_file)
            for hold in standing.holds:
                self._holds.add(connection, hold_values(hold))
            if standing.freeze:
                self._freezes.add(connection, freeze_values(standing.freeze))

    def _mend_copy(self, connection: Connection, file: HoldsFile) -> None:
        """Write a file anew that is gone or damaged; without it, what the ledger has counts."""
        try:
            file.read()
            if file.exists():
                return
        except DamagedHoldsError as error:
            file.set_aside(error, instead="nothing is lost: it is written anew from the ledger")
        except LedgerError:
            return  # a newer release wrote it
        with contextlib.suppress(LedgerError):
            standing = self._standing(connection)
            if standing != Standing():
                file.write(standing)

    def _standing_in_file(self, file: HoldsFile) -> Standing:
        """Return what stands by the file; if it is damaged, that nothing moves.

        Raises:
            LedgerError: A newer release wrote it.
        """
        try:
            return file.read()
        except DamagedHoldsError as error:
            file.set_aside(
                error,
                instead="what operators held, pinned or froze is lost with the ledger, so this "
                "node is frozen: every alias stays where it is until `registry-gateway unfreeze`",
            )
            return Standing(freeze=Freeze(AskedBy.RECOVERY, self._clock()))

    # --- history ----------------------------------------------------------------------------------

    def activated(self, activation: Activation) -> None:
        """Record that an alias moved."""
        with self._database.transaction() as connection:
            self._activations.add(connection, activation_values(activation))

    def activated_late(self, moves: Iterable[Activation]) -> None:
        """Record moves of aliases, oldest first, all or none; without those recorded in time."""
        with self._database.transaction() as connection:
            for row in map(activation_values, moves):
                same = {name: row[name] for name in _OF_ONE_MOVE}
                if connection.execute(self._activations.select(**same)).first() is None:
                    self._activations.add(connection, row)

    def attempted(self, attempt: Attempt) -> None:
        """Record one try of one step."""
        with self._database.transaction() as connection:
            self._attempts.add(connection, attempt_values(attempt))

    def retire(self, gone: AbstractSet[tuple[str, str]]) -> None:
        """Record that aliases are neither listed nor served any more: nothing of theirs is kept.

        Args:
            gone: Models and aliases.
        """
        of_alias = self._activations.mine(model=bindparam("m"), alias=bindparam("a"))
        newest = select(func.max(activations.c.id)).where(of_alias).scalar_subquery()
        with self._database.transaction() as connection:
            connection.execute(
                update(activations)
                .where(activations.c.id == newest)
                .values(retired_at=self._clock()),
                [{"m": model, "a": alias} for model, alias in gone],
            )

    def activations_of(
        self, model: str | None, alias: str | None = None, *, limit: int = 50
    ) -> list[Activation]:
        """Return the activations of a model, or of all, newest first."""
        query = self._activations.newest(limit, **_given(model=model, alias=alias))
        return [activation_of(row) for row in self._rows(query)]

    def attempts_of(self, model: str | None, *, limit: int = 50) -> list[Attempt]:
        """Return the tries of a model, or of all, newest first."""
        query = self._attempts.newest(limit, **_given(model=model))
        return [attempt_of(row) for row in self._rows(query)]

    def decisions_of(self, model: str | None, *, limit: int = 50) -> list[Decision]:
        """Return what was decided about a model, or about all, and about the node; newest first."""
        of_model = _given(model=model)
        held = self._rows(self._holds.last_changed(limit, **of_model))
        wrong = self._rows(self._quarantines.last_changed(limit, **of_model))
        tried = self._rows(self._rejections.last_changed(limit, **of_model))
        frozen = self._rows(self._freezes.last_changed(limit))
        found = [
            *(one for row in held for one in decisions_of_hold(row)),
            *(one for row in wrong for one in decisions_of_quarantine(row)),
            *(one for row in tried for one in decisions_of_rejection(row)),
            *(one for row in frozen for one in decisions_of_freeze(row)),
        ]
        return sorted(found, key=lambda one: one.at, reverse=True)[:limit]

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._database.transaction() as connection:
            return list(connection.execute(query))

    # --- forgetting -------------------------------------------------------------------------------

    def prune(self) -> None:
        """Keep history bounded: the newest entries of each model (of each alias: activations).

        Of aliases that are retired, the newest are remembered, and nothing of the others.
        """
        with self._database.transaction() as connection:
            self._activations.keep_newest(connection, _KEPT_ACTIVATIONS, "model", "alias")
            self._attempts.keep_newest(connection, _KEPT_ATTEMPTS, "model")
            for table in (self._quarantines, self._rejections, self._holds, self._freezes):
                table.forget_released(connection, _KEPT_ATTEMPTS)
            retired = (
                self._last_activations()
                .where(activations.c.retired_at.is_not(None))
                .order_by(activations.c.retired_at.desc(), activations.c.id.desc())
            )
            old = connection.execute(retired).all()[_KEPT_RETIRED_ALIASES:]
            self._activations.remove(
                connection, [{"model": row.model, "alias": row.alias} for row in old]
            )

    def forget_pins(self, gone: AbstractSet[tuple[str, int]]) -> None:
        """Forget what was accepted for versions that are gone, but for the newest of them.

        Args:
            gone: Models and versions.
        """
        newest_first = (
            self._pins.select()
            .with_only_columns(pins.c.model, pins.c.version)
            .order_by(pins.c.at.desc(), pins.c.model, pins.c.version.desc())
        )
        with self._database.transaction() as connection:
            known = [(row.model, row.version) for row in connection.execute(newest_first)]
            old = [key for key in known if key in gone][_KEPT_GONE_PINS:]
            self._pins.remove(connection, [{"model": m, "version": v} for m, v in old])

    def forget_verdicts(self, gone: AbstractSet[tuple[str, int]]) -> None:
        """Forget what was found of versions that are gone, but for the newest of them.

        Args:
            gone: Models and versions.
        """
        with self._database.transaction() as connection:
            for table in (self._quarantines, self._rejections):
                table.forget_gone(connection, gone, _KEPT_GONE_VERDICTS)

    def forget_history(self, alive: AbstractSet[str]) -> None:
        """Forget what happened to models that are gone, but for the newest of them.

        Args:
            alive: Models that the registry lists, or that mean something on this node.
        """
        with self._database.transaction() as connection:
            last_at: dict[str, float] = {}
            for history, at in ((self._activations, "at"), (self._attempts, "started_at")):
                for model, when in connection.execute(history.last_by("model", at)):
                    last_at[model] = max(when, last_at.get(model, when))
            gone = sorted(last_at.keys() - alive, key=lambda model: last_at[model], reverse=True)
            for history in (self._activations, self._attempts):
                history.remove(connection, [{"model": m} for m in gone[_KEPT_GONE_MODELS:]])

    # --- the last listing -------------------------------------------------------------------------

    def remember_listing(self, aspired: Aspired) -> None:
        """Keep a listing for a start during which the registry is down."""
        with self._database.transaction() as connection:
            self._listings.replace(connection, listing_values(aspired))
            connection.execute(delete(listed_models).where(self._listed_models.mine()))

    def remember_models(
        self, models: Mapping[str, AspiredModel | None], *, listed_at: float
    ) -> None:
        """Keep models as they are listed now, beside the listing; None: it has them no more.

        ``listed_at`` is the listing's: one that an older release has written since counts alone.
        """
        rows = [
            listed_model_values(name, model, listed_at=listed_at) for name, model in models.items()
        ]
        with self._database.transaction() as connection:
            self._listed_models.remove(connection, [{"model": row["model"]} for row in rows])
            for row in rows:
                self._listed_models.add(connection, row)

    def last_listing(self) -> Aspired | None:
        """Return the listing that was remembered last, or None."""
        rows = self._rows(self._listings.select())
        if not rows:
            return None
        listing = listing_of(rows[0])
        models = dict(listing.models)
        for row in self._rows(self._listed_models.select()):
            if row.listed_at < listing.listed_at:
                continue
            models.pop(row.model, None)
            if row.body is not None:
                models[row.model] = listed_model_of(row)
        return replace(listing, models=models)


def _of_models(
    models: AbstractSet[str] | None,
) -> Callable[[Select[Any], Table], Select[Any]]:
    """Return what narrows a query of a table to some models; None: it stays as it is."""
    if models is None:
        return lambda query, _table: query
    names = sorted(models)
    return lambda query, table: query.where(table.c.model.in_(names))


def _alias_of(hold: Hold) -> dict[str, Any]:
    return {"model": hold.model, "alias": hold.alias}


def _identity(hold: Hold) -> dict[str, Any]:
    """Return the columns by which a hold is told from every other of its alias."""
    of_this = {"at": hold.at, "lasting": hold.lasting, "target_version": hold.target_version}
    return {**_alias_of(hold), **of_this}


def _given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
