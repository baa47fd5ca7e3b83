"""What one release wrote survives the next, both ways, and both write to the same database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine, insert, select
from sqlalchemy.pool import NullPool

from registry_sync.domain import (
    AcceptedDigest,
    Activation,
    Attempt,
    Freeze,
    Hold,
    Initiator,
    Quarantine,
    Rejection,
)
from registry_sync.ledger.database import find_migrations
from registry_sync.ledger.ledger import Ledger

D1, D2 = ("sha256:" + digit * 64 for digit in "12")
NODE = {"node_id": "a"}
OF_MODEL = {**NODE, "model": "m, é?"}
LISTING = {"models": [{"name": "m, é?", "aliases": {}, "tags": {}, "problems": [], "versions": []}]}
Rows = dict[str, list[dict[str, Any]]]

BY_0001: Rows = {
    "activations": [
        {
            **OF_MODEL,
            "alias": "champion",
            "version": 2,
            "digest": D2,
            "previous_version": 1,
            "previous_digest": D1,
            "asked_by": "poll",
            "at": 10.5,
            "generation": 3,
        }
    ],
    "attempts": [
        {
            **OF_MODEL,
            "alias": None,
            "version": 2,
            "action": "fetch",
            "asked_by": "poll",
            "started_at": 9.5,
            "durations_s": {"fetch": 0.5},
            "outcome": "failed",
            "reason": "gone",
        }
    ],
    "quarantines": [
        {
            **OF_MODEL,
            "version": 3,
            "expected_digest": None,
            "listing": "l",
            "found_digest": D1,
            "reason": "wrong",
            "at": 8.0,
            "released_at": None,
        }
    ],
    "rejections": [
        {
            **OF_MODEL,
            "version": 4,
            "digest": D1,
            "failure": "load_failed",
            "reason": "no",
            "at": 7.0,
            "released_at": None,
        }
    ],
    "holds": [
        {
            **OF_MODEL,
            "alias": "champion",
            "aspired_version": 2,
            "target_version": 1,
            "target_digest": D1,
            "asked_by": "operator",
            "at": 6.0,
            "released_at": released_at,
        }
        for released_at in (5.0, None)
    ],
    "pins": [
        {
            **OF_MODEL,
            "version": 2,
            "digest": D2,
            "expected_digest": D2,
            "stamped": True,
            "listing": None,
            "at": 5.0,
        }
    ],
    "listings": [{**NODE, "listed_at": 4.0, "body": LISTING}],
}
"""What the release with this revision writes, in its own columns."""
BY_0002: Rows = {
    **BY_0001,
    "activations": [
        {**row, "durations_s": {"activate": 0.5}, "retired_at": 11.0, "pinned": True}
        for row in BY_0001["activations"]
    ],
    "holds": [{**row, "lasting": True, "released_by": None} for row in BY_0001["holds"]],
    "quarantines": [
        {**row, "asked_by": "poll", "released_by": None} for row in BY_0001["quarantines"]
    ],
    "freezes": [{**NODE, "asked_by": "operator", "at": 3.0, "released_at": None}],
}
WROTE = pytest.mark.parametrize(
    ("revision", "rows"), [("0001", BY_0001), ("0002", BY_0002), ("0003", BY_0002)]
)
"""0003 has the same columns as 0002."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url, poolclass=NullPool)
    yield made
    made.dispose()


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """This release's ledger, not open yet."""
    made = Ledger(database_url, node_id="a", clock=lambda: 100.0)
    yield made
    made.close()


def go(engine: Engine, move: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(find_migrations()))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
        connection.commit()


def write(engine: Engine, rows: Rows) -> None:
    tables = reflected(engine)
    with engine.begin() as connection:
        for name, values in rows.items():
            connection.execute(insert(tables[name]), values)


def read(engine: Engine, like: Rows) -> Rows:
    """Return what the tables hold, in the columns of ``like``."""
    tables = reflected(engine)
    found: Rows = {}
    with engine.connect() as connection:
        for name, rows in like.items():
            columns = [tables[name].c[column] for column in rows[0]]
            order = tables[name].c["id" if "id" in tables[name].c else "node_id"]
            query = select(*columns).order_by(order)
            found[name] = [dict(row) for row in connection.execute(query).mappings()]
    return found


def reflected(engine: Engine) -> dict[str, Any]:
    metadata = MetaData()
    metadata.reflect(engine)
    return dict(metadata.tables)


@WROTE
def test_what_a_release_before_wrote_survives_up_and_down(
    engine: Engine, ledger: Ledger, revision: str, rows: Rows
) -> None:
    go(engine, command.upgrade, revision)
    write(engine, rows)
    assert ledger.ensure() is True
    ledger.close()
    go(engine, command.downgrade, revision)
    assert read(engine, rows) == rows
    assert ("freezes" in reflected(engine)) is (revision != "0001")


def test_this_release_reads_what_the_one_before_wrote(engine: Engine, ledger: Ledger) -> None:
    go(engine, command.upgrade, "0001")
    write(engine, BY_0001)
    ledger.ensure()
    view, m = ledger.view(), "m, é?"
    moved = Activation(m, "champion", 2, D2, 1, D1, "poll", 10.5, 3)
    assert view.last_active == {(m, "champion"): moved}
    assert view.holds == {(m, "champion"): Hold(m, "champion", 2, 1, D1, "operator", 6.0)}
    assert view.quarantines == {(m, 3): Quarantine(m, 3, None, "l", D1, "wrong", 8.0)}
    assert view.rejections == {(m, 4, D1): Rejection(m, 4, D1, "load_failed", "no", 7.0)}
    assert view.accepted == {(m, 2): AcceptedDigest(m, 2, D2, D2, True, None)}
    assert view.freeze is None
    assert ledger.attempts_of(m) == [
        Attempt(m, None, 2, "fetch", "poll", 9.5, {"fetch": 0.5}, "failed", "gone")
    ]
    assert {one.what for one in ledger.decisions_of(m)} == {"hold", "quarantine"}
    listing = ledger.last_listing()
    assert listing is not None
    assert set(listing.models) == {m}


def test_rows_from_before_the_first_release_have_its_words(engine: Engine, ledger: Ledger) -> None:
    go(engine, command.upgrade, "0007")
    (moved,), (attempt,) = BY_0002["activations"], BY_0002["attempts"]
    hold = {**BY_0002["holds"][1], "lasting": False, "asked_by": "rule"}
    ended = {**BY_0002["quarantines"][0], "released_at": 9.0, "released_by": "operator"}
    steps = [{**attempt, "action": action} for action in ("release", "release_digest", "fetch")]
    rows = {"activations": [{**moved, "asked_by": "rule"}], "holds": [hold], "quarantines": [ended]}
    write(engine, {**rows, "attempts": steps})
    ledger.ensure()
    model = hold["model"]
    assert ledger.view().holds[model, "champion"].asked_by == Initiator.GATEWAY
    assert ledger.activations_of(model)[0].asked_by == Initiator.GATEWAY
    assert [one.action for one in ledger.attempts_of(model)] == [
        "fetch",
        "allow_digest",
        "end_hold",
    ]
    assert ("retry", "operator") in [(one.what, one.asked_by) for one in ledger.decisions_of(model)]


def test_what_this_release_wrote_survives_down_and_up(engine: Engine, ledger: Ledger) -> None:
    ledger.ensure()
    moved = Activation(
        "m", "b", 1, D1, None, None, "gateway", 1.0, 1, {"activate": 0.5}, reason="it fails"
    )
    pin = Hold("m", "b", 2, 1, D1, "operator", 1.0, lasting=True)
    ledger.activated(moved)
    ledger.hold(pin)
    ledger.freeze(Freeze("operator", 2.0))
    ledger.quarantine(Quarantine("m", 3, None, "l", D1, "wrong", 8.0, "webhook"))
    rejection = Rejection("m", 4, D1, "load_failed", "no", 7.0, "these libraries")
    ledger.reject(rejection)
    ledger.close()
    go(engine, command.downgrade, "0001")
    assert ledger.ensure() is True
    view = ledger.view()
    # What only this release can say is gone; the pin is a hold that ends with the next move.
    assert view.holds["m", "b"] == Hold("m", "b", 2, 1, D1, "operator", 1.0)
    assert (view.last_active["m", "b"].version, view.last_active["m", "b"].reason) == (1, None)
    assert view.quarantines["m", 3].reason == "wrong"
    assert view.rejections == {("m", 4, D1): replace(rejection, libraries=None)}
    assert view.freeze is None


def test_versions_beyond_an_integer_go_down_where_they_fit(engine: Engine, ledger: Ledger) -> None:
    ledger.ensure()
    high = 20261121093000
    for version, previous in ((1, None), (2, high), (high, 2)):
        ledger.activated(Activation("m", "b", version, D1, previous, None, "poll", 1.0, 1))
        ledger.accept(AcceptedDigest("m", version, D1, None, False, None))
    ledger.hold(Hold("m", "b", high, 1, D1, "operator", 1.0))
    ledger.close()
    go(engine, command.downgrade, "0002")
    assert ledger.ensure() is True
    view, fit = ledger.view(), engine.dialect.name == "sqlite"
    assert {version for _, version in view.accepted} == ({1, 2, high} if fit else {1, 2})
    moves = [(one.version, one.previous_version) for one in ledger.activations_of("m")]
    assert moves == ([(high, 2), (2, high), (1, None)] if fit else [(2, None), (1, None)])
    assert view.holds["m", "b"].aspired_version == (high if fit else None)
    ledger.accept(AcceptedDigest("m", high, D1, None, False, None))


def test_one_hold_of_an_alias_stands_before_and_after(engine: Engine, ledger: Ledger) -> None:
    """The unique index over the holds in force is there in every revision."""
    config = Config()
    config.set_main_option("script_location", str(find_migrations()))
    newest = ScriptDirectory.from_config(config).get_current_head()
    assert newest is not None
    for revision, ended_at in (("0001", "released_at"), (newest, "ended_at")):
        go(engine, command.upgrade, revision)
        indexes = {one.name: one for one in reflected(engine)["holds"].indexes}
        where = indexes["uq_holds_open"].dialect_options[engine.dialect.name]["where"]
        assert indexes["uq_holds_open"].unique
        assert f"{ended_at} IS NULL" in str(where)
