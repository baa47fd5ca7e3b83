"""The ledger on SQLite: what counts, what is history, and what happens to a lost file."""

import sqlite3
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.database import LedgerSetupError, find_migrations
from registry_sync.errors import LedgerError
from registry_sync.ledger import Ledger
from registry_sync.records import (
    Activation,
    Attempt,
    Freeze,
    Hold,
    LedgerView,
    PinnedVersion,
    Quarantine,
    Rejection,
)

D1, D2 = ("sha256:" + digit * 64 for digit in "12")
MOVE = Activation("m", "champion", 1, D1, None, None, "poll", 10.0, 3)
TRY = Attempt("m", None, 1, "fetch", "poll", 9.0, {"fetch": 0.5}, "complete")


@pytest.fixture
def ledger(tmp_path: Path):
    made = open_at(tmp_path)
    yield made
    made.close()


def open_at(folder: Path, node_id: str = "a") -> Ledger:
    made = Ledger(f"sqlite:///{folder}/ledger.db", node_id=node_id, clock=lambda: 100.0)
    made.ensure()
    return made


def test_a_new_ledger_is_made_once_and_is_empty(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    assert [ledger.ensure(), ledger.ensure()] == [True, False]
    assert ledger.view() == LedgerView()
    ledger.close()
    assert open_at(tmp_path).ensure() is False


def test_the_newest_pin_of_a_version_counts(ledger: Ledger) -> None:
    pin = PinnedVersion("m", 1, D1, None, False, None)
    ledger.pin(pin)
    ledger.pin(replace(pin, digest=D2, expected_digest=D2, stamped=True, listing="l"))
    assert ledger.view().pins == {("m", 1): PinnedVersion("m", 1, D2, D2, True, "l")}


def test_of_versions_that_are_gone_the_newest_pins_stay(tmp_path: Path) -> None:
    at = count()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: next(at))
    other = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="b", clock=lambda: next(at))
    for one in (ledger, other):
        one.ensure()
        one.pin(PinnedVersion("kept", 1, D1, None, False, None))
        one.pin(PinnedVersion("m", 9, D1, None, False, None))
    for number in range(500):
        ledger.pin(PinnedVersion("m", 1000 - number, D1, None, False, None))
    ledger.forget_pins({("m", number) for number in range(1, 1001)})
    left = ledger.view().pins
    assert (len(left), ("kept", 1) in left, ("m", 9) in left) == (501, True, False)
    assert len(other.view().pins) == 2
    ledger.close()
    other.close()


def test_a_quarantine_counts_until_released(ledger: Ledger) -> None:
    first = Quarantine("m", 1, None, None, D2, "wrong", 1.0)
    ledger.quarantine(first)
    ledger.quarantine(replace(first, reason="wrong again"))
    assert ledger.view().quarantines[("m", 1)].reason == "wrong again"
    assert ledger.release_quarantine("m", 1)
    assert not ledger.release_quarantine("m", 1)
    assert ledger.view().quarantines == {}


def test_a_rejection_counts_for_its_bytes_until_released(ledger: Ledger) -> None:
    rejection = Rejection("m", 1, D1, "load_failed", "no", 1.0)
    ledger.reject(rejection)
    assert ledger.view().rejections == {("m", 1, D1): rejection}
    assert ledger.release_rejection("m", 1)
    assert ledger.view().rejections == {}


def test_one_hold_of_an_alias_counts(ledger: Ledger) -> None:
    hold = Hold("m", "champion", 2, 1, D1, "operator", 1.0)
    ledger.hold(hold)
    ledger.hold(replace(hold, target_version=3))
    assert ledger.view().holds == {("m", "champion"): replace(hold, target_version=3)}
    ledger.release_hold("m", "champion")
    assert ledger.view().holds == {}


def test_the_last_activation_of_each_alias_counts(ledger: Ledger) -> None:
    ledger.activated(MOVE)
    ledger.activated(replace(MOVE, alias="b"))
    second = replace(MOVE, version=2, digest=D2, previous_version=1, previous_digest=D1)
    ledger.activated(second)
    assert ledger.view().last_active[("m", "champion")] == second
    assert ledger.activations_of("m", "champion") == [second, MOVE]
    assert len(ledger.activations_of(None)) == 3


def test_a_reason_of_any_length_is_kept_short(ledger: Ledger) -> None:
    ledger.attempted(replace(TRY, outcome="failed", reason="x" * 100_000))
    (kept,) = ledger.attempts_of("m")
    assert len(str(kept.reason)) == 2000
    assert kept.durations_s == {"fetch": 0.5}


def test_history_is_bounded_and_the_newest_stays(ledger: Ledger) -> None:
    for number in range(1, 211):
        ledger.activated(replace(MOVE, version=number))
    for number in range(1, 511):
        ledger.attempted(replace(TRY, version=number))
    ledger.activated(replace(MOVE, model="quiet"))
    ledger.prune()
    assert len(ledger.activations_of("m", limit=1000)) == 200
    assert len(ledger.attempts_of("m", limit=1000)) == 500
    assert ledger.view().last_active[("m", "champion")].version == 210
    assert ("quiet", "champion") in ledger.view().last_active


def test_what_was_decided_is_told_with_who_asked(ledger: Ledger) -> None:
    hold = Hold("m", "champion", 2, 1, D1, "operator", 10.0)
    ledger.hold(hold)
    ledger.hold(replace(hold, lasting=True, at=11.0, target_version=3))
    ledger.release_hold("m", "champion", "operator")
    ledger.quarantine(Quarantine("m", 4, None, None, D2, "wrong", 12.0, "webhook"))
    ledger.release_quarantine("m", 4, "poll")
    ledger.freeze(Freeze("operator", 13.0))
    ledger.freeze(Freeze("operator", 14.0))
    assert ledger.view().freeze == Freeze("operator", 13.0)
    ledger.unfreeze("operator")
    assert ledger.view().freeze is None
    told = [(one.what, one.version, one.asked_by) for one in ledger.decisions_of("m")]
    assert set(told[:3]) == {
        ("unpin", 3, "operator"),
        ("release quarantine", 4, "poll"),
        ("unfreeze", None, "operator"),
    }
    assert told[3:] == [
        ("freeze", None, "operator"),
        ("quarantine", 4, "webhook"),
        ("pin", 3, "operator"),
        ("hold", 1, "operator"),
    ]
    assert len(ledger.decisions_of(None, limit=2)) == 2
    assert [one.what for one in ledger.decisions_of("other")] == ["unfreeze", "freeze"]


def test_an_alias_is_retired_until_it_is_activated_anew(ledger: Ledger) -> None:
    ledger.activated(MOVE)
    ledger.activated(replace(MOVE, alias="b"))
    ledger.retire({("m", "champion"), ("other", "champion")})
    view = ledger.view().last_active
    assert (view["m", "champion"].retired_at, view["m", "b"].retired_at) == (100.0, None)
    ledger.activated(MOVE)
    assert ledger.view().last_active["m", "champion"] == MOVE


def test_of_versions_that_are_gone_the_newest_verdicts_stay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.ledger._KEPT_GONE_VERDICTS", 20)
    for number in range(1, 31):
        ledger.quarantine(Quarantine("m", number, None, None, D2, "wrong", 1.0))
        ledger.reject(Rejection("m", number, D1, "load_failed", "no", 1.0))
    ledger.forget_verdicts({("m", number) for number in range(2, 1000)})
    view = ledger.view()
    assert (len(view.quarantines), len(view.rejections)) == (21, 21)
    assert {("m", 1), ("m", 30)} <= view.quarantines.keys()
    assert ("m", 10) not in view.quarantines


def test_of_models_that_are_gone_the_newest_history_stays(ledger: Ledger) -> None:
    for number in range(510):
        ledger.attempted(replace(TRY, model=f"m{number}", started_at=float(number)))
    ledger.activated(replace(MOVE, model="m0", at=1000.0))
    ledger.activated(replace(MOVE, model="m1", at=1.0))
    ledger.forget_history({"m2"})
    left = {one.model for one in ledger.attempts_of(None, limit=1000)}
    assert (len(left), {"m0", "m2", "m509"} <= left, "m1" in left) == (501, True, False)
    assert {one.model for one in ledger.activations_of(None)} == {"m0"}


def test_durations_and_a_pin_are_part_of_an_activation(ledger: Ledger) -> None:
    ledger.activated(replace(MOVE, durations_s={"confirm": 0.25, "activate": 0.1}, pinned=True))
    (found,) = ledger.activations_of("m")
    assert found.durations_s == {"confirm": 0.25, "activate": 0.1}
    assert found.pinned


def test_nodes_that_share_a_database_see_their_own(tmp_path: Path) -> None:
    one, other = open_at(tmp_path, "a"), open_at(tmp_path, "b")
    one.activated(MOVE)
    one.pin(PinnedVersion("m", 1, D1, None, False, None))
    one.hold(Hold("m", "champion", 2, 1, D1, "operator", 1.0))
    other.hold(Hold("m", "champion", 2, 1, D1, "operator", 1.0))
    assert other.view().pins == {}
    assert other.activations_of("m") == []
    other.release_hold("m", "champion")
    assert one.view().holds
    one.close()
    other.close()


def test_the_last_listing_is_remembered(ledger: Ledger) -> None:
    assert ledger.last_listing() is None
    version = AspiredVersion("a b?", 1, "s3://x", D1, {"t": "v"}, "READY", 5.0, ("odd",))
    model = AspiredModel("a b?", {1: version}, {"champion": 1}, tags={"k": "v"}, problems=("hm",))
    listing = Aspired({"a b?": model}, listed_at=7.0)
    ledger.remember_listing(Aspired({}, 1.0))
    ledger.remember_listing(listing)
    assert ledger.last_listing() == listing


def test_a_deleted_file_is_noticed_and_made_anew(ledger: Ledger, tmp_path: Path) -> None:
    ledger.activated(MOVE)
    (tmp_path / "ledger.db").unlink()
    assert ledger.ensure()
    assert ledger.view() == LedgerView()


def test_a_file_deleted_between_look_and_use_is_an_error_once(
    ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(LedgerError):
        ledger.view()
    assert ledger.ensure()
    assert ledger.view() == LedgerView()


def test_a_file_that_is_no_database_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    with pytest.raises(LedgerError, match="cannot be opened"):
        ledger.ensure()
    ledger.close()


def test_a_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    open_at(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    for _ in range(2):
        with pytest.raises(LedgerSetupError, match="newer release"):
            ledger.open()
    with pytest.raises(LedgerError, match="not open"):
        ledger.attempted(TRY)
    ledger.close()


def test_the_migrations_are_found() -> None:
    assert (find_migrations() / "versions" / "0001_ledger.py").is_file()
