"""The ledger's tables: SQLAlchemy Core metadata. Every table carries ``node_id``."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=_CONVENTION)

_NAME = String(512)
_DIGEST = String(71)
_CREATION = String(64)
_VERSION = BigInteger().with_variant(Integer, "sqlite")
"""SQLite's integers have 64 bits under any name."""


def _node_id(*, primary_key: bool = False) -> Column[str]:
    return Column("node_id", String(64), nullable=False, primary_key=primary_key)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


activations = Table(
    "activations",
    metadata,
    _id(),
    _node_id(),
    Column("model", _NAME, nullable=False),
    Column("alias", String(255), nullable=False),
    Column("version", _VERSION, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("previous_version", _VERSION),
    Column("previous_digest", _DIGEST),
    Column("asked_by", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("durations_s", JSON(none_as_null=True)),
    Column("retired_at", Float),
    Column("pinned", Boolean(create_constraint=False)),
    Column("reason", Text),
    Column("creation", _CREATION),
    Index(None, "node_id", "model", "alias", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    _id(),
    _node_id(),
    Column("model", _NAME, nullable=False),
    Column("alias", String(255)),
    Column("version", _VERSION),
    Column("action", String(16), nullable=False),
    Column("asked_by", String(16), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("durations_s", JSON, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Index(None, "node_id", "model", "id"),
)

quarantines = Table(
    "quarantines",
    metadata,
    _id(),
    _node_id(),
    Column("model", _NAME, nullable=False),
    Column("version", _VERSION, nullable=False),
    Column("expected_digest", _DIGEST),
    Column("listing", Text),
    Column("found_digest", _DIGEST),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("ended_at", Float),
    Column("asked_by", String(16)),
    Column("ended_by", String(16)),
    Column("creation", _CREATION),
    Index(None, "node_id", "model", "version"),
)

rejections = Table(
    "rejections",
    metadata,
    _id(),
    _node_id(),
    Column("model", _NAME, nullable=False),
    Column("version", _VERSION, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("failure", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("ended_at", Float),
    Column("libraries", String(64)),
    Column("ended_by", String(16)),
    Column("own", Boolean, nullable=False, server_default=false()),
    Index(None, "node_id", "model", "version"),
)

holds = Table(
    "holds",
    metadata,
    _id(),
    _node_id(),
    Column("model", _NAME, nullable=False),
    Column("alias", String(255), nullable=False),
    Column("aspired_version", _VERSION),
    Column("target_version", _VERSION, nullable=False),
    Column("target_digest", _DIGEST, nullable=False),
    Column("asked_by", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("ended_at", Float),
    Column("lasting", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("ended_by", String(16)),
    Column("aspired_creation", _CREATION),
    Column("target_creation", _CREATION),
    Index(
        "uq_holds_open",
        "node_id",
        "model",
        "alias",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

freezes = Table(
    "freezes",
    metadata,
    _id(),
    _node_id(),
    Column("asked_by", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("ended_at", Float),
    Column("ended_by", String(16)),
    Index(
        "uq_freezes_open",
        "node_id",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

accepted_digests = Table(
    "accepted_digests",
    metadata,
    _node_id(primary_key=True),
    Column("model", _NAME, primary_key=True),
    Column("version", _VERSION, primary_key=True, autoincrement=False),
    Column("digest", _DIGEST, nullable=False),
    Column("expected_digest", _DIGEST),
    Column("stamped", Boolean(create_constraint=False), nullable=False),
    Column("listing", Text),
    Column("at", Float, nullable=False),
    Column("creation", _CREATION),
    Column("gone_at", Float),
    Column("superseded", Boolean(create_constraint=False)),
)

listed_models = Table(
    "listed_models",
    metadata,
    _node_id(primary_key=True),
    Column("model", _NAME, primary_key=True),
    Column("listed_at", Float, nullable=False),
    Column("body", JSON(none_as_null=True)),
)

listings = Table(
    "listings",
    metadata,
    _node_id(primary_key=True),
    Column("listed_at", Float, nullable=False),
    Column("body", JSON, nullable=False),
)
