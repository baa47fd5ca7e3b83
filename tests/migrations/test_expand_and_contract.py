"""What one release wrote survives the next, both ways, and both write to the same database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, insert, select

from gateway.contract import AliasRef
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
from registry_sync.ledger.ledger import Ledger
from registry_sync.ledger.rows import values_of
from tests.fakes.migrations import alembic_config, go

D1, D2 = ("sha256:" + digit * 64 for digit in "12")
M = "m, é?"
NODE = {"node_id": "a"}
LISTING = {"models": [{"name": M, "aliases": {}, "tags": {}, "problems": [], "versions": []}]}
Rows = dict[str, list[dict[str, Any]]]

MOVE = Activation(M, "champion", 2, D2, 1, D1, "poll", 10.5, 3, {"activate": 0.5}, pinned=True)
TRY = Attempt(M, None, 2, "fetch", "poll", 9.5, {"fetch": 0.5}, "failed", "gone")
WRONG = Quarantine(M, 3, None, "l", D1, "wrong", 8.0, "poll")
REJECTION = Rejection(M, 4, D1, "load_failed", "no", 7.0)
HOLD = Hold(M, "champion", 2, 1, D1, "operator", 6.0, lasting=True)
ACCEPTED = AcceptedDigest(M, 2, D2, D2, True, None, accepted_at=5.0)
ROWS: Rows = {
    "activations": [{**values_of(MOVE), "retired_at": 11.0}],
    "attempts": [values_of(TRY)],
    "quarantines": [values_of(WRONG)],
    "rejections": [values_of(REJECTION)],
    "holds": [{**values_of(HOLD), "released_at": at} for at in (5.0, None)],
    "pins": [values_of(ACCEPTED)],
    "listings": [{"listed_at": 4.0, "body": LISTING}],
    "freezes": [{"asked_by": "operator", "at": 3.0}],
}
"""What a release writes in the tables and columns that it has."""


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """This release's ledger, not open yet."""
    made = Ledger(database_url, node_id="a", clock=lambda: 100.0)
    yield made
    made.close()


def write(engine: Engine, rows: Rows) -> None:
    tables = reflected(engine)
    with engine.begin() as connection:
        for name in rows.keys() & tables.keys():
            table = tables[name]
            for row in rows[name]:
                known = {column: row[column] for column in row.keys() & table.c.keys()}
                connection.execute(insert(table), {**NODE, **known})


def read(engine: Engine) -> Rows:
    """Return every row of every table."""
    found: Rows = {}
    with engine.connect() as connection:
        for name, table in reflected(engine).items():
            query = select(table).order_by(*table.primary_key)
            found[name] = [dict(row) for row in connection.execute(query).mappings()]
    return found


def reflected(engine: Engine) -> dict[str, Any]:
    metadata = MetaData()
    metadata.reflect(engine)
    return dict(metadata.tables)


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_a_release_before_wrote_survives_up_and_down(
    engine: Engine, ledger: Ledger, revision: str
) -> None:
    go(engine, command.upgrade, revision)
    write(engine, ROWS)
    written = read(engine)
    assert len(written["holds"]) == 2
    assert ledger.ensure() is True
    ledger.close()
    go(engine, command.downgrade, revision)
    assert read(engine) == written
    assert ("freezes" in written) is (revision != "0001")


def test_this_release_reads_what_the_one_before_wrote(engine: Engine, ledger: Ledger) -> None:
    go(engine, command.upgrade, "0001")
    write(engine, ROWS)
    ledger.ensure()
    view = ledger.view()
    assert view.last_active == {(M, "champion"): replace(MOVE, durations_s={}, pinned=False)}
    assert view.holds == {(M, "champion"): replace(HOLD, lasting=False)}
    assert view.quarantines == {(M, 3): replace(WRONG, asked_by=None)}
    assert view.rejections == {(M, 4, D1): REJECTION}
    assert view.accepted == {(M, 2): ACCEPTED}
    assert view.freeze is None
    assert ledger.attempts_of(M) == [TRY]
    assert {one.what for one in ledger.decisions_of(M)} == {"hold", "quarantine"}
    listing = ledger.last_listing()
    assert listing is not None
    assert set(listing.models) == {M}


def test_rows_from_before_the_first_release_have_its_words(engine: Engine, ledger: Ledger) -> None:
    go(engine, command.upgrade, "0007")
    hold = {**values_of(replace(HOLD, lasting=False)), "asked_by": "rule"}
    ended = {**values_of(WRONG), "released_at": 9.0, "released_by": "operator"}
    steps = [{**values_of(TRY), "action": one} for one in ("release", "release_digest", "fetch")]
    rejected = {**values_of(REJECTION), "failure": "own_live"}
    rows = {"activations": [{**values_of(MOVE), "asked_by": "rule"}], "holds": [hold]}
    rows["rejections"] = [rejected]
    write(engine, {**rows, "quarantines": [ended], "attempts": steps})
    ledger.ensure()
    assert ledger.view().holds[AliasRef(M, "champion")].asked_by == Initiator.GATEWAY
    assert ledger.activations_of(M)[0].asked_by == Initiator.GATEWAY
    (rejection,) = ledger.view().rejections.values()
    assert (rejection.failure, rejection.own) == ("live", True)
    go(engine, command.downgrade, "0007")
    assert [row["failure"] for row in read(engine)["rejections"]] == ["own_live"]
    go(engine, command.upgrade, "head")
    assert [one.action for one in ledger.attempts_of(M)] == [
        "fetch",
        "allow_digest",
        "end_hold",
    ]
    assert ("retry", "operator") in [(one.what, one.asked_by) for one in ledger.decisions_of(M)]


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
    assert view.holds[AliasRef("m", "b")] == Hold("m", "b", 2, 1, D1, "operator", 1.0)
    assert (
        view.last_active[AliasRef("m", "b")].version,
        view.last_active[AliasRef("m", "b")].reason,
    ) == (1, None)
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
    assert view.holds[AliasRef("m", "b")].aspired_version == (high if fit else None)
    ledger.accept(AcceptedDigest("m", high, D1, None, False, None))


def test_one_hold_of_an_alias_stands_before_and_after(engine: Engine, ledger: Ledger) -> None:
    """The unique index over the holds in force is there in every revision."""
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert newest is not None
    for revision, ended_at in (("0001", "released_at"), (newest, "ended_at")):
        go(engine, command.upgrade, revision)
        indexes = {one.name: one for one in reflected(engine)["holds"].indexes}
        where = indexes["uq_holds_open"].dialect_options[engine.dialect.name]["where"]
        assert indexes["uq_holds_open"].unique
        assert f"{ended_at} IS NULL" in str(where)
