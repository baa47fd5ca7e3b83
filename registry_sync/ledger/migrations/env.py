"""Alembic's entry: migrates the ledger of the settings, or that of a given connection."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from registry_sync.ledger import begin_immediate, metadata
from registry_sync.settings import SyncSettings

_LOCK_KEY = 7_318_604_221
"""The advisory lock that makes nodes on one PostgreSQL migrate one after the other."""


_STATEMENT_LIMIT = "30s"
"""The limit of a statement if a control plane migrates as it starts. By hand there is no limit."""


def _migrate(connection: Connection, *, statement_limit: str = "0") -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transaction_per_migration=False,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "sqlite":
            begin_immediate(connection)
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL statement_timeout = '{statement_limit}'"))
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})"))
        context.run_migrations()


def _run() -> None:
    url = SyncSettings().ledger_url
    if context.is_offline_mode():
        context.configure(
            url=url, target_metadata=metadata, literal_binds=True, transactional_ddl=True
        )
        with context.begin_transaction():
            context.run_migrations()
        return
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection, statement_limit=_STATEMENT_LIMIT)
        return
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as own:
        _migrate(own)
        own.commit()


_run()
