"""History and verdicts of this node in SQL. What the gateway serves is not decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    Attempt,
    Hold,
    LedgerView,
    PinnedVersion,
    Quarantine,
    Rejection,
)
from registry_sync.tables import (
    activations,
    attempts,
    holds,
    listings,
    pins,
    quarantines,
    rejections,
)

_KEPT_ACTIVATIONS = 200
_KEPT_ATTEMPTS = 500
_KEPT_GONE_PINS = 500
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
            held = connection.execute(
                select(holds).where(self._mine(holds, released_at=None))
            ).all()
            active = connection.execute(
                select(activations).where(activations.c.id.in_(newest))
            ).all()
        return LedgerView(
            pins={(row.model, row.version): _pin(row) for row in pinned},
            quarantines={(row.model, row.version): _quarantine(row) for row in wrong},
            rejections={(row.model, row.version, row.digest): _rejection(row) for row in refused},
            holds={(row.model, row.alias): _hold(row) for row in held},
            last_active={(row.model, row.alias): _activation(row) for row in active},
        )

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
                )
            )

    def release_quarantine(self, model: str, version: int) -> bool:
        """Let a version be tried again; whether there was something to release."""
        return self._release_verdicts(quarantines, model, version)

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

    def _release_verdicts(self, table: Table, model: str, version: int) -> bool:
        with self._database.transaction() as connection:
            done = connection.execute(
                update(table)
                .where(self._mine(table, model=model, version=version, released_at=None))
                .values(released_at=self._clock())
            )
        return done.rowcount > 0

    def hold(self, hold: Hold) -> None:
        """Keep an alias where it is told; replaces an older hold."""
        with self._database.transaction() as connection:
            self._release_hold(connection, hold.model, hold.alias)
            self._insert_hold(connection, hold)
            self._copy_holds(connection)

    def release_hold(self, model: str, alias: str) -> None:
        """Let an alias follow the registry again."""
        with self._database.transaction() as connection:
            self._release_hold(connection, model, alias)
            self._copy_holds(connection)

    def _copy_holds(self, connection: Connection) -> None:
        """Write what stands into the file before it is kept: without its copy, no hold changes."""
        if self._holds_file is not None:
            standing = select(holds).where(self._mine(holds, released_at=None))
            self._holds_file.write(_hold(row) for row in connection.execute(standing))

    def _restore_holds(self) -> None:
        """Take the holds of the file into a ledger that has no history: it was lost."""
        if self._holds_file is None:
            return
        known = [
            *self._rows(select(holds.c.id).where(self._mine(holds)).limit(1)),
            *self._rows(select(activations.c.id).where(self._mine(activations)).limit(1)),
        ]
        if known:
            return
        with self._database.transaction() as connection:
            for hold in self._holds_file.read():
                self._insert_hold(connection, hold)

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
            )
        )

    def _release_hold(self, connection: Connection, model: str, alias: str) -> None:
        connection.execute(
            update(holds)
            .where(self._mine(holds, model=model, alias=alias, released_at=None))
            .values(released_at=self._clock())
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
                    durations_s={k: round(v, 6) for k, v in attempt.durations_s.items()},
                    outcome=attempt.outcome,
                    reason=attempt.reason[:_MAX_REASON_CHARACTERS] if attempt.reason else None,
                )
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

    def prune(self) -> None:
        """Keep history bounded: the newest entries of each model (of each alias: activations)."""
        self._keep_newest(activations, _KEPT_ACTIVATIONS, ("model", "alias"))
        self._keep_newest(attempts, _KEPT_ATTEMPTS, ("model",))
        released = (quarantines, rejections, holds)
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
    )


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
