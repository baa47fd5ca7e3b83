"""The SQL database of the ledger: connections, migration, and errors as sentences."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import DataError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from registry_sync.errors import LedgerError
from registry_sync.ledger.tables import metadata

_CONNECT_TIMEOUT_S = 3
_SILENCE_TIMEOUT_MS = 10_000
_STATEMENT_TIMEOUT_MS = 6_000
_FENCE_TIMEOUT_MS = 3_000
_POSTGRESQL_LIMITS = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "tcp_user_timeout": _SILENCE_TIMEOUT_MS,
    "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
}


_HALF_MIGRATED = ("already exists", "duplicate column name")
_LEFT_HALF_MIGRATED = (
    "was left half migrated, by a release that was killed while it migrated, or has tables that "
    "are not its own"
)
_LONGEST_REVISION = 32


class LedgerSetupError(LedgerError):
    """The ledger can never be used by this process, as after a downgrade."""


@contextmanager
def migrations_folder() -> Iterator[Path]:
    """Yield the folder of the migrations, which Alembic reads as files.

    They are data of this package. Where it lies in a zip archive, they are copied into a temporary
    folder for as long as the context is open.
    """
    packed = resources.files("registry_sync.ledger") / "migrations"
    if isinstance(packed, Path):
        yield packed
        return
    with tempfile.TemporaryDirectory(prefix="registry-gateway-") as folder:
        _copy(packed, Path(folder))
        yield Path(folder)


def _copy(packed: Traversable, folder: Path) -> None:
    for one in packed.iterdir():
        if one.is_file():
            (folder / one.name).write_bytes(one.read_bytes())
        else:
            (folder / one.name).mkdir()
            _copy(one, folder / one.name)


class _Sockets:
    """The connections of a database, which any thread can cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, Any] = {}
        self._is_cut = False

    def opens(self, *_: object) -> None:
        """Refuse a new connection once all are cut; a pool connects by itself.

        Raises:
            LedgerError: The connections are cut.
        """
        if self._is_cut:
            raise LedgerError("the ledger did not answer in time")

    def opened(self, connection: Any, _record: object) -> None:
        """Register a new connection, or cut it if all are cut."""
        with self._lock:
            self._open[id(connection)] = connection
            is_cut = self._is_cut
        if is_cut:
            _shut_down(connection)

    def closed(self, connection: Any, _record: object) -> None:
        """Forget a connection."""
        with self._lock:
            self._open.pop(id(connection), None)

    def cut(self) -> None:
        """Cut every connection, so that each thread that waits for an answer gets an error."""
        with self._lock:
            self._is_cut = True
            for connection in self._open.values():
                _shut_down(connection)


def _shut_down(connection: Any) -> None:
    """Shut down a connection's socket; its thread closes the connection."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class Database:
    """One database. Blocking; safe to call from any thread. `close` releases it.

    ``made`` says that it was made or migrated, and `ensure` has not returned that yet; ``unfenced``
    that its connections were cut, so that their transactions may go on.

    Attributes:
        is_migrating: Whether the database is being made or migrated, which may take long.
    """

    def __init__(self, url: str | URL, *, made: bool = False, unfenced: bool = False) -> None:
        self._url = make_url(url)
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._suspect = False
        self._made = made
        self._unfenced = unfenced
        self._sockets = _Sockets()
        self.is_migrating = False

    def ensure(self, then: Callable[[], None]) -> bool:
        """Make the database usable; return whether it had to be made or migrated.

        A deleted file is made anew. ``then`` is called before other threads may use the database.
        After a failure the database is not open, and the next call tries all steps again.

        Raises:
            LedgerError: The database does not answer.
            LedgerSetupError: No later attempt can succeed.
        """
        with self._opening:
            missing = self._file is not None and not self._file.exists()
            if self._engine is not None and not missing and not self._suspect:
                return False
            self._release()
            try:
                self._open(then)
            except BaseException:
                self._release()
                raise
            # Returned by the first call that succeeds; the call that migrated may have failed.
            made, self._made = self._made, False
            return made

    def _open(self, then: Callable[[], None]) -> None:
        self._engine = self._connect()
        self._made = self._migrate(self._engine) or self._made
        if self._unfenced:
            self._fence(self._engine)
        then()
        self._suspect = self._unfenced = False

    def close(self) -> None:
        """Close every connection."""
        with self._opening:
            self._release()

    def abandon(self) -> Database:
        """Cut all present and future connections; return the same database, not open yet.

        The thread that waits for an answer gets an error, and must `close` this object.
        """
        self._sockets.cut()
        return Database(self._url, made=self._made or self.is_migrating, unfenced=True)

    def _fence(self, engine: Engine) -> None:
        """Wait, for a bounded time, until the transactions of cut connections have ended.

        A database that hung goes on with the statements it was sent; a read before their commit
        would miss them.
        """
        names = ", ".join(table.name for table in metadata.sorted_tables)
        with contextlib.suppress(OperationalError), engine.begin() as connection:
            if self._is_sqlite:
                begin_immediate(connection)
            elif self._url.get_backend_name() == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = {_FENCE_TIMEOUT_MS}"))
                connection.execute(text(f"LOCK TABLE {names} IN SHARE MODE"))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection in a transaction, which is committed at the end of the block.

        Raises:
            LedgerError: The database failed.
        """
        engine = self._engine
        if engine is None:
            raise LedgerError("the ledger is not open")
        try:
            with engine.begin() as connection:
                yield connection
        except DataError as error:
            raise LedgerError(f"the ledger cannot hold this: {_first_line(error)}") from error
        except SQLAlchemyError as error:
            # The file may have been deleted, and connecting made an empty one.
            self._suspect = True
            raise LedgerError(f"the ledger does not answer: {_first_line(error)}") from error

    @property
    def _file(self) -> Path | None:
        if not self._is_sqlite or self._url.database in (None, "", ":memory:"):
            return None
        return Path(str(self._url.database))

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _check_revision(self, found: Sequence[str | None], scripts: ScriptDirectory) -> None:
        """Check that a database can be migrated from its revision."""
        known = {script.revision for script in scripts.walk_revisions()}
        if not found or (len(found) == 1 and found[0] in known):
            return
        revisions = ", ".join(repr(revision)[:_LONGEST_REVISION] for revision in found)
        if len(found) == 1 and _is_beyond(found[0], scripts.get_current_head()):
            raise LedgerSetupError(
                f"the ledger was written by a newer release: start that one (revision {revisions})"
            )
        reason = f"has the revision {revisions}, which no release writes"
        raise LedgerSetupError(self._how_to_begin_anew(reason))

    def _how_to_begin_anew(self, reason: str) -> str:
        location = self._file or self._url.render_as_string(hide_password=True)
        return (
            f"the ledger at {location} {reason}: move it away and start again. Another is made, "
            "and what is active, pinned and held is taken from the node; history is lost"
        )

    def _release(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _connect(self) -> Engine:
        if not self._is_sqlite:
            limits = _POSTGRESQL_LIMITS if self._url.get_backend_name() == "postgresql" else {}
            engine = create_engine(
                self._url, pool_pre_ping=True, pool_size=2, max_overflow=4, connect_args=limits
            )
            event.listen(engine, "do_connect", self._sockets.opens)
            # Before SQLAlchemy's own listener, which queries the new connection.
            event.listen(engine, "connect", self._sockets.opened, insert=True)
            event.listen(engine, "close", self._sockets.closed)
            return engine
        # No pool: a pooled connection would go on writing to a file that was deleted.
        engine = create_engine(self._url, poolclass=NullPool)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine

    def _migrate(self, engine: Engine) -> bool:
        config = Config()
        try:
            with migrations_folder() as folder, engine.connect() as connection:
                config.set_main_option("script_location", str(folder).replace("%", "%%"))
                found = MigrationContext.configure(connection).get_current_heads()
                scripts = ScriptDirectory.from_config(config)
                if found == (scripts.get_current_head(),):
                    return False
                self._check_revision(found, scripts)
                connection.rollback()
                config.attributes["connection"] = connection
                self.is_migrating = True
                command.upgrade(config, "head")
                connection.commit()
        except CommandError as error:
            raise LedgerSetupError(
                self._how_to_begin_anew(f"cannot be migrated ({error})")
            ) from error
        except (SQLAlchemyError, OSError) as error:
            if any(sign in str(error) for sign in _HALF_MIGRATED):
                raise LedgerSetupError(self._how_to_begin_anew(_LEFT_HALF_MIGRATED)) from error
            raise LedgerError(f"the ledger cannot be opened: {_first_line(error)}") from error
        finally:
            self.is_migrating = False
        return True


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def begin_immediate(connection: Connection) -> None:
    """Begin a transaction on SQLite that includes DDL and excludes other writers.

    By default the driver commits each DDL statement at once, without a transaction.
    """
    raw: Any = connection.connection.dbapi_connection
    raw.isolation_level = None  # the driver begins no transactions from here on
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_beyond(revision: str | None, head: str | None) -> bool:
    """Whether a revision is a number above the last known one."""
    if revision is None or head is None or len(revision) > _LONGEST_REVISION:
        return False
    return revision.isascii() and revision.isdecimal() and int(revision) > int(head)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
