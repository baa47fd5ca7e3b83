"""Every migration goes up, down and up again, and ends at what `registry_sync.tables` says."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect

from registry_sync.ledger.tables import metadata
from tests.fakes.migrations import alembic_config, go

ROOT = Path(__file__).parents[2]


def revisions() -> list[str]:
    """Every revision, the oldest first."""
    script = ScriptDirectory.from_config(alembic_config())
    return [one.revision for one in reversed(list(script.walk_revisions()))]


def test_up_down_up_one_by_one(engine: Engine) -> None:
    for revision in revisions():
        go(engine, command.upgrade, revision)
        go(engine, command.downgrade, "-1")
        go(engine, command.upgrade, revision)


def test_down_to_nothing_leaves_nothing(engine: Engine) -> None:
    go(engine, command.upgrade, "head")
    go(engine, command.downgrade, "base")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}


def test_the_migrations_end_at_the_tables_of_the_code(engine: Engine) -> None:
    go(engine, command.upgrade, "head")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_every_table_carries_the_node() -> None:
    assert [t.name for t in metadata.tables.values() if "node_id" not in t.columns] == []


def test_there_is_one_line_of_revisions() -> None:
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


def test_by_hand_they_migrate_the_ledger_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_SYNC_DATABASE_URL", f"sqlite:///{tmp_path}/by-hand.db")
    made = Config(toml_file=ROOT / "pyproject.toml")
    command.upgrade(made, "head")
    assert (tmp_path / "by-hand.db").exists()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_statements_can_be_written_for(
    dialect: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "sqlite://" if dialect == "sqlite" else "postgresql+psycopg://nobody@nowhere/none"
    monkeypatch.setenv("REGISTRY_SYNC_DATABASE_URL", url)
    command.upgrade(alembic_config(), "head", sql=True)
    written = capsys.readouterr().out
    assert "CREATE TABLE activations" in written
    assert "WHERE released_at IS NULL" in written  # as the first migration writes it
