"""History and verdicts of this node in SQL. What the gateway serves is not decided here."""

from __future__ import annotations

import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
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

_BUSY_TIMEOUT_MS = 10_000
_CONNECT_TIMEOUT_S = 3
_SILENCE_TIMEOUT_MS = 10_000
_POSTGRESQL_LIMITS = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "tcp_user_timeout": _SILENCE_TIMEOUT_MS,
}
_KEPT_ACTIVATIONS = 200
_KEPT_ATTEMPTS = 500
_MAX_REASON_CHARACTERS = 2000


def find_migrations() -> Path:
    """Return the folder of the migrations: beside the package, or where a wheel puts it.

    Raises:
        LedgerError: It is in neither place.
    """
    places = (
        Path(__file__).resolve().parents[1] / "migrations",
        Path(sysconfig.get_path("data")) / "share" / "registry-gateway" / "migrations",
    )
    for place in places:
        if (place / "env.py").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise LedgerError(f"the ledger's migrations are not at {looked}: the installation is broken")


class NewerLedgerError(LedgerError):
    """A newer release wrote the ledger."""


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
        self._url = make_url(url)
        self._node_id = node_id
        self._clock = clock
        self._holds_file = holds_file
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._suspect = False

    # --- the database -----------------------------------------------------------------------------

    def ensure(self) -> bool:
        """Make the ledger usable, and say whether it had to be made or migrated.

        A ledger file that was deleted, even a moment ago, is made anew.
        """
        with self._opening:
            missing = self._file is not None and not self._file.exists()
            if self._engine is not None and not missing and not self._suspect:
                return False
            self._release()
            self._engine = self._connect()
            migrated = self._migrate(self._engine)
            self._restore_holds()
            self._suspect = False
            return migrated

    def refuse_newer(self) -> None:
        """Open the ledger at the start of the process; a database that is down may come later.

        Raises:
            NewerLedgerError: A newer release wrote it: this one must not write into it.
        """
        try:
            self.ensure()
        except NewerLedgerError:
            raise
        except LedgerError:
            return

    def close(self) -> None:
        """Close every connection."""
        with self._opening:
            self._release()

    @property
    def _file(self) -> Path | None:
        if self._url.get_backend_name() != "sqlite" or self._url.database in (None, "", ":memory:"):
            return None
        return Path(str(self._url.database))

    def _release(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _connect(self) -> Engine:
        if self._url.get_backend_name() != "sqlite":
            limits = _POSTGRESQL_LIMITS if self._url.get_backend_name() == "postgresql" else {}
            return create_engine(
                self._url, pool_pre_ping=True, pool_size=2, max_overflow=4, connect_args=limits
            )
        # No pool: a pooled connection would go on writing to a file that was deleted.
        engine = create_engine(self._url, poolclass=NullPool)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine

    def _migrate(self, engine: Engine) -> bool:
        config = Config()
        config.set_main_option("script_location", str(find_migrations()).replace("%", "%%"))
        try:
            with engine.connect() as connection:
                before = MigrationContext.configure(connection).get_current_revision()
                head = ScriptDirectory.from_config(config).get_current_head()
                if before == head:
                    return False
                connection.rollback()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except CommandError as error:
            raise NewerLedgerError(
                f"the ledger was written by a newer release: start that one ({error})"
            ) from error
        except (SQLAlchemyError, OSError) as error:
            raise LedgerError(f"the ledger cannot be opened: {_first_line(error)}") from error
        return True

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        engine = self._engine
        if engine is None:
            raise LedgerError("the ledger is not open")
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            # The file may have been deleted a moment ago, and an empty one made by connecting.
            self._suspect = True
            raise LedgerError(f"the ledger does not answer: {_first_line(error)}") from error

    def _mine(self, table: Table, **where: object) -> ColumnElement[bool]:
        clause = table.c.node_id == self._node_id
        for name, value in where.items():
            column = table.c[name]
            clause = clause & (column.is_(None) if value is None else column == value)
        return clause

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._transaction() as connection:
            return list(connection.execute(query))

    # --- what counts now --------------------------------------------------------------------------

    def view(self) -> LedgerView:
        """Return what counts now."""
        newest = (
            select(func.max(activations.c.id))
            .where(self._mine(activations))
            .group_by(activations.c.model, activations.c.alias)
        )
        with self._transaction() as connection:
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
        with self._transaction() as connection:
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

    def quarantine(self, found: Quarantine) -> None:
        """Record wrong bytes; what was recorded of this version before is released by it."""
        self._release_verdicts(quarantines, found.model, found.version)
        with self._transaction() as connection:
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
        with self._transaction() as connection:
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
        with self._transaction() as connection:
            done = connection.execute(
                update(table)
                .where(self._mine(table, model=model, version=version, released_at=None))
                .values(released_at=self._clock())
            )
        return done.rowcount > 0

    def hold(self, hold: Hold) -> None:
        """Keep an alias where it is told; replaces an older hold."""
        with self._transaction() as connection:
            self._release_hold(connection, hold.model, hold.alias)
            self._insert_hold(connection, hold)

        self._copy_holds()

    def release_hold(self, model: str, alias: str) -> None:
        """Let an alias follow the registry again."""
        with self._transaction() as connection:
            self._release_hold(connection, model, alias)
        self._copy_holds()

    def _copy_holds(self) -> None:
        if self._holds_file is not None:
            standing = self._rows(select(holds).where(self._mine(holds, released_at=None)))
            self._holds_file.write(_hold(row) for row in standing)

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
        with self._transaction() as connection:
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
        with self._transaction() as connection:
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
        with self._transaction() as connection:
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
        with self._transaction() as connection:
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
        with self._transaction() as connection:
            connection.execute(
                delete(table).where(
                    table.c.id.in_(select(ranked.c.id).where(ranked.c.rank > count))
                )
            )

    # --- the last listing -------------------------------------------------------------------------

    def remember_listing(self, aspired: Aspired) -> None:
        """Keep a listing for a start during which the registry is down."""
        with self._transaction() as connection:
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


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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
            tags=model["tags"],
            problems=tuple(model["problems"]),
        )
    return Aspired(models=models, listed_at=listed_at)
