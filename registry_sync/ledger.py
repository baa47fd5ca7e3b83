"""History and verdicts of this node in SQL. What the gateway serves is not decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.database import Database, LedgerSetupError
from registry_sync.errors import LedgerError
from registry_sync.holds_file import HoldsFile
from registry_sync.records import (
    Activation,
    AskedBy,
    Attempt,
    Decision,
    Freeze,
    Hold,
    LedgerView,
    PinnedVersion,
    Quarantine,
    Rejection,
    Standing,
)
from registry_sync.tables import (
    activations,
    attempts,
    freezes,
    holds,
    listings,
    pins,
    quarantines,
    rejections,
)

_KEPT_ACTIVATIONS = 200
_KEPT_ATTEMPTS = 500
_KEPT_GONE_PINS = 500
_KEPT_GONE_VERDICTS = 500
_KEPT_GONE_MODELS = 500
_MAX_REASON_CHARACTERS = 2000


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
        self._node_id = node_id
        self._clock = clock
        self._holds_file = holds_file

    # --- open and close ---------------------------------------------------------------------------

    def ensure(self) -> bool:
        """Make the ledger usable, and say whether it had to be made or migrated."""
        return self._database.ensure(self._restore_holds)

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

    def _mine(self, table: Table, **where: object) -> ColumnElement[bool]:
        clause = table.c.node_id == self._node_id
        for name, value in where.items():
            column = table.c[name]
            clause = clause & (column.is_(None) if value is None else column == value)
        return clause

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._database.transaction() as connection:
            return list(connection.execute(query))

    # --- what counts now --------------------------------------------------------------------------

    def view(self) -> LedgerView:
        """Return what counts now."""
        newest = (
            select(func.max(activations.c.id))
            .where(self._mine(activations))
            .group_by(activations.c.model, activations.c.alias)
        )
        with self._database.transaction() as connection:
            pinned = connection.execute(select(pins).where(self._mine(pins))).all()
            wrong = connection.execute(
                select(quarantines)
                .where(self._mine(quarantines, released_at=None))
                .order_by(quarantines.c.id)
            ).all()
            refused = connection.execute(
                select(rejections).where(self._mine(rejections, released_at=None))
            ).all()
            held = connection.execute(self._standing(holds)).all()
            active = connection.execute(
                select(activations).where(activations.c.id.in_(newest))
            ).all()
            frozen = connection.execute(self._standing(freezes)).one_or_none()
        return LedgerView(
            pins={(row.model, row.version): _pin(row) for row in pinned},
            quarantines={(row.model, row.version): _quarantine(row) for row in wrong},
            rejections={(row.model, row.version, row.digest): _rejection(row) for row in refused},
            holds={(row.model, row.alias): _hold(row) for row in held},
            last_active={(row.model, row.alias): _activation(row) for row in active},
            freeze=_freeze(frozen) if frozen else None,
        )

    def _standing(self, table: Table) -> Select[Any]:
        return select(table).where(self._mine(table, released_at=None))

    # --- writing ----------------------------------------------------------------------------------

    def pin(self, pin: PinnedVersion) -> None:
        """Record the bytes that were accepted for a version; replaces what was pinned before."""
        with self._database.transaction() as connection:
            connection.execute(
                delete(pins).where(self._mine(pins, model=pin.model, version=pin.version))
            )
            connection.execute(
                insert(pins).values(
                    node_id=self._node_id,
                    model=pin.model,
                    version=pin.version,
                    digest=pin.digest,
                    expected_digest=pin.expected_digest,
                    stamped=pin.stamped,
                    listing=pin.listing,
                    at=self._clock(),
                )
            )

    def forget_pins(self, gone: AbstractSet[tuple[str, int]]) -> None:
        """Forget what was accepted for versions that are gone, but for the newest of them.

        Args:
            gone: Models and versions.
        """
        newest_first = (
            select(pins.c.model, pins.c.version)
            .where(self._mine(pins))
            .order_by(pins.c.at.desc(), pins.c.model, pins.c.version.desc())
        )
        one = (
            self._mine(pins) & (pins.c.model == bindparam("m")) & (pins.c.version == bindparam("v"))
        )
        with self._database.transaction() as connection:
            known = [(row.model, row.version) for row in connection.execute(newest_first)]
            old = [key for key in known if key in gone][_KEPT_GONE_PINS:]
            if old:
                connection.execute(delete(pins).where(one), [{"m": m, "v": v} for m, v in old])

    def forget_verdicts(self, gone: AbstractSet[tuple[str, int]]) -> None:
        """Forget what was found of versions that are gone, but for the newest of them.

        Args:
            gone: Models and versions.
        """
        with self._database.transaction() as connection:
            for table in (quarantines, rejections):
                newest_first = self._standing(table).order_by(table.c.id.desc())
                rows = connection.execute(newest_first)
                ids = [row.id for row in rows if (row.model, row.version) in gone]
                if old := ids[_KEPT_GONE_VERDICTS:]:
                    one = table.c.id == bindparam("i")
                    connection.execute(delete(table).where(one), [{"i": number} for number in old])

    def forget_history(self, alive: AbstractSet[str]) -> None:
        """Forget what happened to models that are gone, but for the newest of them.

        Args:
            alive: Models that the registry lists, or that mean something on this node.
        """
        with self._database.transaction() as connection:
            last_at: dict[str, float] = {}
            for table, at in ((activations, "at"), (attempts, "started_at")):
                newest = select(table.c.model, func.max(table.c[at]))
                rows = connection.execute(newest.where(self._mine(table)).group_by(table.c.model))
                for model, when in rows:
                    last_at[model] = max(when, last_at.get(model, when))
            gone = sorted(last_at.keys() - alive, key=lambda model: last_at[model], reverse=True)
            old = [{"m": model} for model in gone[_KEPT_GONE_MODELS:]]
            for table in (activations, attempts) if old else ():
                one = self._mine(table) & (table.c.model == bindparam("m"))
                connection.execute(delete(table).where(one), old)

    def quarantine(self, found: Quarantine) -> None:
        """Record wrong bytes; what was recorded of this version before is released by it."""
        self._release_verdicts(quarantines, found.model, found.version)
        with self._database.transaction() as connection:
            connection.execute(
                insert(quarantines).values(
                    node_id=self._node_id,
                    model=found.model,
                    version=found.version,
                    expected_digest=found.expected_digest,
                    listing=found.listing,
                    found_digest=found.found_digest,
                    reason=found.reason[:_MAX_REASON_CHARACTERS],
                    at=found.at,
                    asked_by=None if found.asked_by is None else str(found.asked_by),
                )
            )

    def release_quarantine(self, model: str, version: int, released_by: str | None = None) -> bool:
        """Let a version be tried again; whether there was something to release."""
        return self._release_verdicts(quarantines, model, version, released_by=released_by)

    def reject(self, found: Rejection) -> None:
        """Record a version that no alias may follow with these bytes."""
        with self._database.transaction() as connection:
            connection.execute(
                insert(rejections).values(
                    node_id=self._node_id,
                    model=found.model,
                    version=found.version,
                    digest=found.digest,
                    failure=found.failure,
                    reason=found.reason[:_MAX_REASON_CHARACTERS],
                    at=found.at,
                )
            )

    def release_rejection(self, model: str, version: int) -> bool:
        """Let aliases follow a version again; whether there was something to release."""
        return self._release_verdicts(rejections, model, version)

    def _release_verdicts(self, table: Table, model: str, version: int, **also: str | None) -> bool:
        with self._database.transaction() as connection:
            done = connection.execute(
                update(table)
                .where(self._mine(table, model=model, version=version, released_at=None))
                .values(released_at=self._clock(), **also)
            )
        return done.rowcount > 0

    def hold(self, hold: Hold) -> None:
        """Keep an alias where it is told; replaces an older hold."""
        with self._database.transaction() as connection:
            self._release_hold(connection, hold.model, hold.alias)
            self._insert_hold(connection, hold)
            self._copy_standing(connection)

    def release_hold(self, model: str, alias: str, released_by: str = AskedBy.POLL) -> None:
        """Let an alias follow the registry again."""
        with self._database.transaction() as connection:
            self._release_hold(connection, model, alias, released_by)
            self._copy_standing(connection)

    def freeze(self, freeze: Freeze) -> None:
        """Let no alias of this node follow the registry; one that is frozen stays so."""
        with self._database.transaction() as connection:
            if connection.execute(self._standing(freezes)).first() is None:
                self._insert_freeze(connection, freeze)
            self._copy_standing(connection)

    def unfreeze(self, released_by: str) -> None:
        """Let the aliases of this node follow the registry again."""
        with self._database.transaction() as connection:
            connection.execute(
                update(freezes)
                .where(self._mine(freezes, released_at=None))
                .values(released_at=self._clock(), released_by=str(released_by))
            )
            self._copy_standing(connection)

    def _copy_standing(self, connection: Connection) -> None:
        """Write what stands into the file before it is kept: without its copy, nothing changes."""
        if self._holds_file is None:
            return
        frozen = connection.execute(self._standing(freezes)).one_or_none()
        held = connection.execute(self._standing(holds))
        self._holds_file.write(
            Standing(
                holds=tuple(_hold(row) for row in held),
                freeze=_freeze(frozen) if frozen else None,
            )
        )

    def _restore_holds(self) -> None:
        """Take what stands in the file into a ledger that has no history: it was lost."""
        if self._holds_file is None:
            return
        known = [
            *self._rows(select(holds.c.id).where(self._mine(holds)).limit(1)),
            *self._rows(select(activations.c.id).where(self._mine(activations)).limit(1)),
            *self._rows(select(freezes.c.id).where(self._mine(freezes)).limit(1)),
        ]
        if known:
            return
        with self._database.transaction() as connection:
            standing = self._holds_file.read()
            for hold in standing.holds:
                self._insert_hold(connection, hold)
            if standing.freeze:
                self._insert_freeze(connection, standing.freeze)

    def _insert_hold(self, connection: Connection, hold: Hold) -> None:
        connection.execute(
            insert(holds).values(
                node_id=self._node_id,
                model=hold.model,
                alias=hold.alias,
                aspired_version=hold.aspired_version,
                target_version=hold.target_version,
                target_digest=hold.target_digest,
                asked_by=str(hold.asked_by),
                at=hold.at,
                lasting=hold.lasting,
            )
        )

    def _insert_freeze(self, connection: Connection, freeze: Freeze) -> None:
        connection.execute(
            insert(freezes).values(
                node_id=self._node_id, asked_by=str(freeze.asked_by), at=freeze.at
            )
        )

    def _release_hold(
        self, connection: Connection, model: str, alias: str, released_by: str | None = None
    ) -> None:
        connection.execute(
            update(holds)
            .where(self._mine(holds, model=model, alias=alias, released_at=None))
            .values(released_at=self._clock(), released_by=released_by and str(released_by))
        )

    def activated(self, activation: Activation) -> None:
        """Record that an alias moved."""
        with self._database.transaction() as connection:
            connection.execute(
                insert(activations).values(
                    node_id=self._node_id,
                    model=activation.model,
                    alias=activation.alias,
                    version=activation.version,
                    digest=activation.digest,
                    previous_version=activation.previous_version,
                    previous_digest=activation.previous_digest,
                    asked_by=str(activation.asked_by),
                    at=activation.at,
                    generation=activation.generation,
                    durations_s=_rounded(activation.durations_s) or None,
                    pinned=activation.pinned,
                )
            )

    def attempted(self, attempt: Attempt) -> None:
        """Record one try of one step."""
        with self._database.transaction() as connection:
            connection.execute(
                insert(attempts).values(
                    node_id=self._node_id,
                    model=attempt.model,
                    alias=attempt.alias,
                    version=attempt.version,
                    action=attempt.action,
                    asked_by=str(attempt.asked_by),
                    started_at=attempt.started_at,
                    durations_s=_rounded(attempt.durations_s),
                    outcome=attempt.outcome,
                    reason=attempt.reason[:_MAX_REASON_CHARACTERS] if attempt.reason else None,
                )
            )

    def retire(self, gone: AbstractSet[tuple[str, str]]) -> None:
        """Record that aliases are neither listed nor served any more: nothing of theirs is kept.

        Args:
            gone: Models and aliases.
        """
        of_alias = (
            self._mine(activations)
            & (activations.c.model == bindparam("m"))
            & (activations.c.alias == bindparam("a"))
        )
        newest = select(func.max(activations.c.id)).where(of_alias).scalar_subquery()
        with self._database.transaction() as connection:
            connection.execute(
                update(activations)
                .where(activations.c.id == newest)
                .values(retired_at=self._clock()),
                [{"m": model, "a": alias} for model, alias in gone],
            )

    # --- history ----------------------------------------------------------------------------------

    def activations_of(
        self, model: str | None, alias: str | None = None, *, limit: int = 50
    ) -> list[Activation]:
        """Return the activations of a model, or of all, newest first."""
        where = self._mine(activations) if model is None else self._mine(activations, model=model)
        if alias is not None:
            where = where & (activations.c.alias == alias)
        query = select(activations).where(where).order_by(activations.c.id.desc()).limit(limit)
        return [_activation(row) for row in self._rows(query)]

    def attempts_of(self, model: str | None, *, limit: int = 50) -> list[Attempt]:
        """Return the tries of a model, or of all, newest first."""
        where = self._mine(attempts) if model is None else self._mine(attempts, model=model)
        query = select(attempts).where(where).order_by(attempts.c.id.desc()).limit(limit)
        return [_attempt(row) for row in self._rows(query)]

    def decisions_of(self, model: str | None, *, limit: int = 50) -> list[Decision]:
        """Return what was decided about a model, or about all, and about the node; newest first."""
        found = [
            *(one for row in self._changed(holds, model, limit) for one in _hold_decisions(row)),
            *(one for row in self._changed(quarantines, model, limit) for one in _verdicts(row)),
            *(one for row in self._changed(freezes, None, limit) for one in _freezings(row)),
        ]
        return sorted(found, key=lambda one: one.at, reverse=True)[:limit]

    def _changed(self, table: Table, model: str | None, limit: int) -> list[Row[Any]]:
        """Return the rows that were made or released last."""
        where = self._mine(table) if model is None else self._mine(table, model=model)
        changed_at = func.coalesce(table.c.released_at, table.c.at)
        return self._rows(select(table).where(where).order_by(changed_at.desc()).limit(limit))

    def prune(self) -> None:
        """Keep history bounded: the newest entries of each model (of each alias: activations)."""
        self._keep_newest(activations, _KEPT_ACTIVATIONS, ("model", "alias"))
        self._keep_newest(attempts, _KEPT_ATTEMPTS, ("model",))
        released = (quarantines, rejections, holds, freezes)
        with self._database.transaction() as connection:
            for table in released:
                connection.execute(
                    delete(table).where(
                        self._mine(table)
                        & table.c.released_at.is_not(None)
                        & table.c.id.not_in(
                            select(table.c.id)
                            .where(self._mine(table))
                            .order_by(table.c.id.desc())
                            .limit(_KEPT_ATTEMPTS)
                        )
                    )
                )

    def _keep_newest(self, table: Table, count: int, by: tuple[str, ...]) -> None:
        rank = (
            func.row_number()
            .over(partition_by=[table.c[name] for name in by], order_by=table.c.id.desc())
            .label("rank")
        )
        ranked = select(table.c.id, rank).where(self._mine(table)).subquery()
        with self._database.transaction() as connection:
            connection.execute(
                delete(table).where(
                    table.c.id.in_(select(ranked.c.id).where(ranked.c.rank > count))
                )
            )

    # --- the last listing -------------------------------------------------------------------------

    def remember_listing(self, aspired: Aspired) -> None:
        """Keep a listing for a start during which the registry is down."""
        with self._database.transaction() as connection:
            connection.execute(delete(listings).where(self._mine(listings)))
            connection.execute(
                insert(listings).values(
                    node_id=self._node_id,
                    listed_at=aspired.listed_at,
                    body=_listing_body(aspired),
                )
            )

    def last_listing(self) -> Aspired | None:
        """Return the listing that was remembered last, or None."""
        rows = self._rows(select(listings).where(self._mine(listings)))
        return _listing(rows[0].body, rows[0].listed_at) if rows else None


def _rounded(durations_s: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 6) for phase, seconds in durations_s.items()}


def _pin(row: Row[Any]) -> PinnedVersion:
    return PinnedVersion(
        row.model, row.version, row.digest, row.expected_digest, bool(row.stamped), row.listing
    )


def _quarantine(row: Row[Any]) -> Quarantine:
    return Quarantine(
        row.model,
        row.version,
        row.expected_digest,
        row.listing,
        row.found_digest,
        row.reason,
        row.at,
        row.asked_by,
    )


def _rejection(row: Row[Any]) -> Rejection:
    return Rejection(row.model, row.version, row.digest, row.failure, row.reason, row.at)


def _hold(row: Row[Any]) -> Hold:
    return Hold(
        row.model,
        row.alias,
        row.aspired_version,
        row.target_version,
        row.target_digest,
        row.asked_by,
        row.at,
        bool(row.lasting),
    )


def _freeze(row: Row[Any]) -> Freeze:
    return Freeze(row.asked_by, row.at)


def _hold_decisions(row: Row[Any]) -> Iterator[Decision]:
    what, end = ("pin", "unpin") if row.lasting else ("hold", "release")
    version = row.target_version
    yield Decision(row.at, what, row.model, row.alias, version, row.asked_by)
    if row.released_by is not None:  # one that another hold replaced ends without a word
        yield Decision(row.released_at, end, row.model, row.alias, version, row.released_by)


def _verdicts(row: Row[Any]) -> Iterator[Decision]:
    about = {"model": row.model, "version": row.version}
    yield Decision(row.at, "quarantine", asked_by=row.asked_by, reason=row.reason, **about)
    if row.released_by is not None:
        yield Decision(row.released_at, "release quarantine", asked_by=row.released_by, **about)


def _freezings(row: Row[Any]) -> Iterator[Decision]:
    yield Decision(row.at, "freeze", None, asked_by=row.asked_by)
    if row.released_at is not None:
        yield Decision(row.released_at, "unfreeze", None, asked_by=row.released_by)


def _activation(row: Row[Any]) -> Activation:
    return Activation(
        row.model,
        row.alias,
        row.version,
        row.digest,
        row.previous_version,
        row.previous_digest,
        row.asked_by,
        row.at,
        row.generation,
        row.durations_s or {},
        row.retired_at,
        bool(row.pinned),
    )


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        row.model,
        row.alias,
        row.version,
        row.action,
        row.asked_by,
        row.started_at,
        row.durations_s,
        row.outcome,
        row.reason,
    )


def _listing_body(aspired: Aspired) -> dict[str, Any]:
    return {
        "models": [
            {
                "name": model.name,
                "aliases": dict(model.aliases),
                "unfollowed": sorted(model.unfollowed),
                "aliases_known": model.aliases_known,
                "tags": dict(model.tags),
                "problems": list(model.problems),
                "versions": [
                    {
                        "version": one.version,
                        "location": one.location,
                        "expected_digest": one.expected_digest,
                        "tags": dict(one.tags),
                        "status": one.status,
                        "created_at": one.created_at,
                        "problems": list(one.problems),
                    }
                    for one in model.versions.values()
                ],
            }
            for model in aspired.models.values()
        ]
    }


def _listing(body: Mapping[str, Any], listed_at: float) -> Aspired:
    models = {}
    for model in body["models"]:
        versions = {
            one["version"]: AspiredVersion(
                model=model["name"], **{**one, "problems": tuple(one["problems"])}
            )
            for one in model["versions"]
        }
        models[model["name"]] = AspiredModel(
            name=model["name"],
            versions=versions,
            aliases=model["aliases"],
            unfollowed=frozenset(model.get("unfollowed", ())),
            aliases_known=model.get("aliases_known", True),
            tags=model["tags"],
            problems=tuple(model["problems"]),
        )
    return Aspired(models=models, listed_at=listed_at)
