"""The node's history and decisions, in SQL. The gateway, not the ledger, has the routes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, bindparam, delete, func, select, update

from gateway.contract import AliasRef
from registry_sync.domain import (
    AcceptedDigest,
    AcceptedDigestChange,
    Activation,
    Aspired,
    AspiredModel,
    Attempt,
    Decision,
    Freeze,
    Hold,
    HoldChange,
    Initiator,
    LedgerView,
    Quarantine,
    Rejection,
    Rollback,
)
from registry_sync.errors import LedgerError
from registry_sync.ledger.database import Database
from registry_sync.ledger.hold_tables import HoldTables
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.rows import (
    accepted_values,
    decisions_of_freeze,
    decisions_of_hold,
    decisions_of_quarantine,
    decisions_of_rejection,
    listed_model_of,
    listed_model_values,
    listing_of,
    listing_values,
    record_of,
    values_of,
)
from registry_sync.ledger.scoped_tables import EndableTable, NodeTable
from registry_sync.ledger.tables import (
    accepted_digests,
    activations,
    attempts,
    holds,
    listed_models,
    listings,
    quarantines,
    rejections,
)

_KEPT_ACTIVATIONS = 200
_KEPT_ATTEMPTS = 500
_KEPT_RETIRED_ALIASES = 500
_KEPT_GONE_DIGESTS = 500
_KEPT_GONE_REFUSALS = 500
_KEPT_GONE_MODELS = 500
_OF_ONE_MOVE = ("model", "alias", "version", "at", "generation")
"""The columns that identify a move."""


class Ledger:
    """The ledger of one node. Blocking; safe to call from any thread. `close` releases it.

    Every method raises `LedgerError` when the database fails.
    """

    def __init__(
        self,
        url: str,
        *,
        node_id: str,
        clock: Callable[[], float],
        holds_file: HoldsFile | None = None,
    ) -> None:
        """``clock`` gives epoch seconds; ``holds_file`` keeps a copy of holds and freeze."""
        self._database = Database(url)
        self._clock = clock
        self._accepted = NodeTable(accepted_digests, node_id)
        self._quarantines = EndableTable(quarantines, node_id, clock)
        self._rejections = EndableTable(rejections, node_id, clock)
        self._holds = HoldTables(node_id, clock, self._rejections, holds_file)
        self._activations = NodeTable(activations, node_id)
        self._attempts = NodeTable(attempts, node_id)
        self._listings = NodeTable(listings, node_id)
        self._listed_models = NodeTable(listed_models, node_id)

    # --- open and close ---------------------------------------------------------------------------

    def ensure(self) -> bool:
        """Make the ledger usable; return whether it was made or migrated."""
        made = self._database.ensure(self._restore_holds)
        if self._holds.copy_is_due:
            with contextlib.suppress(LedgerError), self._changing_holds():
                pass
        return made

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    @property
    def is_migrating(self) -> bool:
        """Whether the ledger is being made or migrated, which may take long."""
        return self._database.is_migrating

    def abandon(self) -> Callable[[], None]:
        """Fail the call of a thread that waits for an answer; `ensure` connects anew.

        The write of that thread may happen or not; `ensure` waits until that is certain. The
        returned call releases that thread's connections.
        """
        abandoned, self._database = self._database, self._database.abandon()
        self._holds.copy_is_due = True
        return abandoned.close

    # --- the view ---------------------------------------------------------------------------------

    def view(self, models: AbstractSet[str] | None = None) -> LedgerView:
        """Return the records in force, or those of some models, without the freeze."""
        of_models = _of_models(models)
        in_force = self._quarantines.in_force().order_by(quarantines.c.id)
        automatic = self._holds.holds.select(asked_by=str(Initiator.GATEWAY))
        queries = {
            "accepted": of_models(self._accepted.select(), accepted_digests),
            "quarantines": of_models(in_force, quarantines),
            "rejections": of_models(self._rejections.in_force(), rejections),
            "holds": of_models(self._holds.holds.in_force(), holds),
            "last_active": of_models(self._last_activations(models), activations),
            "automatic_rollbacks": of_models(automatic, holds),
        }
        with self._database.transaction() as connection:
            rows = {name: connection.execute(query).all() for name, query in queries.items()}
            freeze = None if models is not None else self._holds.freeze_in_force(connection)
        accepted = [record_of(AcceptedDigest, row) for row in rows["accepted"]]
        quarantined = [record_of(Quarantine, row) for row in rows["quarantines"]]
        rejected = [record_of(Rejection, row) for row in rows["rejections"]]
        held = [record_of(Hold, row) for row in rows["holds"]]
        last_active = [record_of(Activation, row) for row in rows["last_active"]]
        return LedgerView(
            accepted={(one.model, one.version): one for one in accepted},
            quarantines={(one.model, one.version): one for one in quarantined},
            rejections={one.ref: one for one in rejected},
            holds={one.alias_ref: one for one in held},
            last_active={one.alias_ref: one for one in last_active},
            freeze=freeze,
            automatic_rollbacks=frozenset(
                (AliasRef(row.model, row.alias), row.at) for row in rows["automatic_rollbacks"]
            ),
        )

    def _last_activations(self, models: AbstractSet[str] | None = None) -> Select[Any]:
        """Return the query for the newest activation of each alias, of some models or of all."""
        newest = _of_models(models)(select(func.max(activations.c.id)), activations)
        newest = newest.where(self._activations.mine())
        grouped = newest.group_by(activations.c.model, activations.c.alias)
        return select(activations).where(activations.c.id.in_(grouped))

    # --- bytes, quarantines, rejections -----------------------------------------------------------

    def accept(self, accepted: AcceptedDigest) -> None:
        """Record the accepted digest of a version, in place of any other."""
        with self._database.transaction() as connection:
            row = accepted_values(accepted, at=self._clock())
            self._accepted.replace(connection, row, "model", "version")

    def note_accepted(self, changes: Sequence[AcceptedDigestChange]) -> None:
        """Record changes of accepted digests, except of those that were replaced meanwhile."""
        now = self._clock()
        with self._database.transaction() as connection:
            for before, after in ((one.before, one.after) for one in changes):
                row = accepted_values(after, at=now)
                key = {"model": after.model, "version": after.version}
                if before is not None:
                    known = {"digest": before.digest, "creation": before.creation}
                    same, was = self._accepted.mine(**key, **known), accepted_values(before, at=now)
                    news = {name: value for name, value in row.items() if value != was[name]}
                    connection.execute(update(accepted_digests).where(same).values(**news))
                elif not self._accepted.has(connection, **key):
                    self._accepted.add(connection, row)

    def quarantine(self, found: Quarantine) -> None:
        """Record wrong bytes, in place of an older quarantine of the version."""
        with self._database.transaction() as connection:
            self._quarantines.end(connection, model=found.model, version=found.version)
            self._quarantines.add(connection, values_of(found))

    def end_quarantine(self, model: str, version: int, ended_by: str | None = None) -> bool:
        """Release a version's quarantine; return whether there was one."""
        with self._database.transaction() as connection:
            return self._quarantines.end(
                connection, model=model, version=version, ended_by=ended_by
            )

    def reject(self, found: Rejection) -> None:
        """Record that no alias may follow a version with these bytes."""
        with self._database.transaction() as connection:
            self._reject(connection, found)

    def _reject(self, connection: Connection, found: Rejection) -> None:
        self._rejections.end(
            connection, model=found.model, version=found.version, digest=found.digest
        )
        self._rejections.add(connection, values_of(found))

    def end_rejection(
        self,
        model: str,
        version: int,
        digest: str | None = None,
        *,
        ended_by: str = Initiator.POLL,
    ) -> bool:
        """Release a version's rejections, of one digest or of all; return whether there was one."""
        of = _given(model=model, version=version, digest=digest)
        with self._database.transaction() as connection:
            return self._rejections.end(connection, ended_by=ended_by, **of)

    # --- holds and freeze -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing_holds(self) -> Iterator[Connection]:
        """Lend a transaction at whose end the holds file gets a copy."""
        with self._database.transaction() as connection:
            yield connection
            self._holds.copy(connection)

    def hold(self, hold: Hold, *, at: float | None = None) -> None:
        """Hold an alias; an older hold of it ends ``at`` these epoch seconds, or now if None."""
        with self._changing_holds() as connection:
            self._holds.hold(connection, hold, at)

    def note_aspired(self, hold: Hold, version: int, creation: str | None = None) -> bool:
        """Record the aspired version of a hold that was made without knowing it."""
        with self._changing_holds() as connection:
            return self._holds.set_aspired(connection, hold, version, creation)

    def end_hold(
        self, hold: Hold, ended_by: str = Initiator.POLL, *, at: float | None = None
    ) -> bool:
        """Release a hold, if it is in force; return whether it was."""
        with self._changing_holds() as connection:
            return self._holds.end(connection, hold, ended_by, at)

    def rolled_back(self, done: Rollback) -> bool:
        """Record an automatic rollback; return whether it was new.

        An operator's hold stays in force.
        """
        with self._changing_holds() as connection:
            if not self._holds.add_automatic(connection, done.hold):
                return False
            self._activations.add(connection, values_of(done.activation))
            self._reject(connection, done.rejection)
        return True

    def freeze(self, freeze: Freeze) -> None:
        """Freeze the node, unless it is frozen: no alias follows the registry."""
        with self._changing_holds() as connection:
            self._holds.freeze(connection, freeze)

    def unfreeze(self, ended_by: str) -> None:
        """Unfreeze the node: its aliases follow the registry again."""
        with self._changing_holds() as connection:
            self._holds.freezes.end(connection, ended_by=ended_by)

    def record(self, change: HoldChange, *, late: bool) -> None:
        """Record a decision in force; ``late`` if an earlier attempt may have recorded it.

        A newer decision about the same alias, or the node, prevails over a late one.
        """
        if late:
            with self._changing_holds() as connection:
                self._holds.record_late(connection, change)
        elif change.hold is None:
            if change.what == "freeze":
                self.freeze(Freeze(change.asked_by, change.at))
            else:
                self.unfreeze(change.asked_by)
        elif change.what == "hold":
            self.hold(change.hold, at=change.at)
        else:
            self.end_hold(change.hold, change.asked_by, at=change.at)

    def _restore_holds(self) -> None:
        """Restore the holds of a ledger without history from the holds file, or mend the file."""
        with self._database.transaction() as connection:
            tables = (self._holds.holds, self._activations, self._holds.freezes)
            if any(table.has(connection) for table in tables):
                self._holds.mend_file(connection)
            else:
                self._holds.restore(connection)

    # --- history ----------------------------------------------------------------------------------

    def activated(self, activation: Activation) -> None:
        """Record a move of an alias."""
        with self._database.transaction() as connection:
            self._activations.add(connection, values_of(activation))

    def activated_late(self, moves: Iterable[Activation]) -> None:
        """Record moves in one transaction, oldest first; skip moves that are recorded already."""
        with self._database.transaction() as connection:
            for row in map(values_of, moves):
                if not self._activations.has(
                    connection, **{name: row[name] for name in _OF_ONE_MOVE}
                ):
                    self._activations.add(connection, row)

    def attempted(self, attempt: Attempt) -> None:
        """Record an attempt."""
        with self._database.transaction() as connection:
            self._attempts.add(connection, values_of(attempt))

    def retire(self, gone: AbstractSet[AliasRef]) -> None:
        """Record that aliases are neither listed nor served any more."""
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
        return [record_of(Activation, row) for row in self._rows(query)]

    def attempts_of(self, model: str | None, *, limit: int = 50) -> list[Attempt]:
        """Return the attempts of a model, or of all, newest first."""
        query = self._attempts.newest(limit, **_given(model=model))
        return [record_of(Attempt, row) for row in self._rows(query)]

    def decisions_of(self, model: str | None, *, limit: int = 50) -> list[Decision]:
        """Return the decisions about a model, or all, and about the node, newest first."""
        of_model = _given(model=model)
        held = self._rows(self._holds.holds.last_changed(limit, **of_model))
        quarantined = self._rows(self._quarantines.last_changed(limit, **of_model))
        rejected = self._rows(self._rejections.last_changed(limit, **of_model))
        frozen = self._rows(self._holds.freezes.last_changed(limit))
        found = [
            *(one for row in held for one in decisions_of_hold(row)),
            *(one for row in quarantined for one in decisions_of_quarantine(row)),
            *(one for row in rejected for one in decisions_of_rejection(row)),
            *(one for row in frozen for one in decisions_of_freeze(row)),
        ]
        return sorted(found, key=lambda one: one.at, reverse=True)[:limit]

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._database.transaction() as connection:
            return list(connection.execute(query))

    # --- retention --------------------------------------------------------------------------------

    def prune(self) -> None:
        """Remove old history, beyond the newest entries of each model or alias."""
        with self._database.transaction() as connection:
            self._activations.keep_newest(connection, _KEPT_ACTIVATIONS, "model", "alias")
            self._attempts.keep_newest(connection, _KEPT_ATTEMPTS, "model")
            holds_and_freezes = (self._holds.holds, self._holds.freezes)
            for table in (self._quarantines, self._rejections, *holds_and_freezes):
                table.remove_ended(connection, _KEPT_ATTEMPTS)
            retired = (
                self._last_activations()
                .where(activations.c.retired_at.is_not(None))
                .order_by(activations.c.retired_at.desc(), activations.c.id.desc())
            )
            old = connection.execute(retired).all()[_KEPT_RETIRED_ALIASES:]
            self._activations.remove(
                connection, [{"model": row.model, "alias": row.alias} for row in old]
            )

    def forget_accepted(self, gone: AbstractSet[tuple[str, int]]) -> None:
        """Remove the accepted digests of gone versions (model, version), except the newest."""
        newest_first = (
            self._accepted.select()
            .with_only_columns(accepted_digests.c.model, accepted_digests.c.version)
            .order_by(
                accepted_digests.c.at.desc(),
                accepted_digests.c.model,
                accepted_digests.c.version.desc(),
            )
        )
        with self._database.transaction() as connection:
            known = [(row.model, row.version) for row in connection.execute(newest_first)]
            old = [key for key in known if key in gone][_KEPT_GONE_DIGESTS:]
            self._accepted.remove(connection, [{"model": m, "version": v} for m, v in old])

    def forget_refusals(self, gone: AbstractSet[tuple[str, int]]) -> None:
        """Remove quarantines and rejections of gone (model, version), except the newest."""
        with self._database.transaction() as connection:
            for table in (self._quarantines, self._rejections):
                table.remove_gone(connection, gone, _KEPT_GONE_REFUSALS)

    def forget_history(self, alive: AbstractSet[str]) -> None:
        """Remove the history of models that are not ``alive``, except the newest of them."""
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
        """Record a listing, for a start without the registry."""
        with self._database.transaction() as connection:
            self._listings.replace(connection, listing_values(aspired))
            connection.execute(delete(listed_models).where(self._listed_models.mine()))

    def remember_models(
        self, models: Mapping[str, AspiredModel | None], *, listed_at: float
    ) -> None:
        """Record the present state of listed models, None if the registry has one no more.

        ``listed_at`` is the time of the recorded listing; a newer listing, which an older release
        may write, overrides these models.
        """
        rows = [
            listed_model_values(name, model, listed_at=listed_at) for name, model in models.items()
        ]
        with self._database.transaction() as connection:
            self._listed_models.remove(connection, [{"model": row["model"]} for row in rows])
            for row in rows:
                self._listed_models.add(connection, row)

    def last_listing(self) -> Aspired | None:
        """Return the recorded listing, or None."""
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
    """Return a function that restricts a query of a table to some models, or not at all (None)."""
    if models is None:
        return lambda query, _table: query
    names = sorted(models)
    return lambda query, table: query.where(table.c.model.in_(names))


def _given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
