"""Alembic as an operator or a release runs it, on a database of the tests."""

from collections.abc import Callable
from pathlib import Path

from alembic.config import Config
from sqlalchemy import Engine

from registry_sync import ledger

MIGRATIONS = Path(ledger.__file__).with_name("migrations")


def alembic_config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


def go(engine: Engine, move: Callable[[Config, str], None], revision: str) -> None:
    """Move a database up or down to a revision."""
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
        connection.commit()
