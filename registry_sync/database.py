"""The SQL database behind the ledger: made, migrated, given back; its errors as sentences."""

from __future__ import annotations

import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from registry_sync.errors import LedgerError

_BUSY_TIMEOUT_MS = 10_000
_CONNECT_TIMEOUT_S = 3
_SILENCE_TIMEOUT_MS = 10_000
_STATEMENT_TIMEOUT_MS = 30_000
_POSTGRESQL_LIMITS = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "tcp_user_timeout": _SILENCE_TIMEOUT_MS,
    "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
}


class LedgerSetupError(LedgerError):
    """No waiting helps: a newer release wrote the ledger, or the installation lacks a part."""


def find_migrations() -> Path:
    """Return the folder of the migrations: beside the package, or where a wheel puts it.

    Raises:
        LedgerSetupError: It is in neither place.
    """
    places = (
        Path(__file__).resolve().parents[1] / "migrations",
        Path(sysconfig.get_path("data")) / "share" / "registry-gateway" / "migrations",
    )
    for place in places:
        if (place / "env.py").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise LedgerSetupError(
        f"the ledger's migrations are not at {looked}: the installation is broken"
    )


class Database:
    """One database. Blocking: call from a thread; any thread may. `close` releases it."""

    def __init__(self, url: str) -> None:
        """Store."""
        self._url = make_url(url)
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._suspect = False
        self._made = False

    def ensure(self, then: Callable[[], None]) -> bool:
        """Make the database usable; return whether it had to be made or migrated.

        A file that was deleted, even a moment ago, is made anew. ``then`` is called before anybody
        else may use what was opened. What fails on the way is tried again from the start by the
        next call, and nothing is open until it has succeeded.

        Raises:
            LedgerError: It does not answer.
            LedgerSetupError: It never will, as things are.
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
            # Said once, by the call that succeeds: the one that migrated may have failed after it.
            made, self._made = self._made, False
            return made

    def _open(self, then: Callable[[], None]) -> None:
        self._engine = self._connect()
        self._made = self._migrate(self._engine) or self._made
        then()
        self._suspect = False

    def close(self) -> None:
        """Close every connection."""
        with self._opening:
            self._release()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection; what was done is kept if the block ends well.

        Raises:
            LedgerError: The database does not take or give what is asked.
        """
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
            raise LedgerSetupError(
                f"the ledger was written by a newer release: start that one ({error})"
            ) from error
        except (SQLAlchemyError, OSError) as error:
            raise LedgerError(f"the ledger cannot be opened: {_first_line(error)}") from error
        return True


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
