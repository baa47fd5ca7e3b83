"""The ledger on each database: what counts, and what is history."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from gateway.contract import AliasRef, ArtifactRef
from registry_sync.domain import (
    AcceptedDigest,
    AcceptedDigestChange,
    Activation,
    Attempt,
    Freeze,
    Hold,
    HoldChange,
    HoldsSnapshot,
    LedgerView,
    Quarantine,
    Rejection,
    Rollback,
    ViewsByModel,
    view_by_model,
)
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.errors import LedgerError
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.ledger.rows import listing_values, values_of
from tests.servers import Postgres, clean_environ

ROOT = Path(__file__).parents[2]
START_LIMIT_S = 60.0
D1, D2 = ("sha256:" + digit * 64 for digit in "12")
MOVE = Activation("m", "champion", 1, D1, None, None, "poll", 10.0, 3)
HOLD = Hold("m", "champion", 2, 1, D1, "operator", 1.0)
TRY = Attempt("m", None, 1, "fetch", "poll", 9.0, {"fetch": 0.5}, "complete")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with opened(database_url) as made:
        yield made


@contextlib.contextmanager
def opened(url: str, node_id: str = "a", clock: Callable[[], float] = lambda: 100.0):
    made = Ledger(url, node_id=node_id, clock=clock)
    made.ensure()
    try:
        yield made
    finally:
        made.close()


def test_the_newest_accepted_digest_of_a_version_counts(ledger: Ledger) -> None:
    known = AcceptedDigest("m", 1, D1, None, False, None)
    ledger.accept(known)
    ledger.accept(replace(known, digest=D2, expected_digest=D2, stamped=True, listing="l"))
    assert ledger.view().accepted == {("m", 1): AcceptedDigest("m", 1, D2, D2, True, "l")}


def test_what_is_learned_of_an_accepted_digest_counts_while_it_is_that_one(ledger: Ledger) -> None:
    known = AcceptedDigest("m", 1, D1, None, False, "l", creation="c1")
    ledger.accept(known)
    gone = replace(known, gone_at=5.0, superseded=True)
    other = replace(known, model="renamed")
    ledger.note_accepted([AcceptedDigestChange(known, gone), AcceptedDigestChange(None, other)])
    assert ledger.view().accepted == {("m", 1): gone, ("renamed", 1): other}
    newer = AcceptedDigest("m", 1, D2, None, False, "l", creation="c2")
    ledger.accept(newer)
    ledger.note_accepted([AcceptedDigestChange(gone, known), AcceptedDigestChange(None, known)])
    assert ledger.view().accepted["m", 1] == newer, "what was accepted meanwhile stays"


def test_a_version_that_took_a_used_name_brings_its_whole_accepted_digest(ledger: Ledger) -> None:
    known = AcceptedDigest("m", 1, D1, None, False, "l", creation="c1", accepted_at=5.0)
    ledger.accept(known)
    its = AcceptedDigest("m", 1, D2, D2, True, "l2", creation="c2", accepted_at=7.0)
    ledger.note_accepted([AcceptedDigestChange(known, its)])
    found = ledger.view().accepted["m", 1]
    assert (found, found.accepted_at) == (its, 7.0)


@pytest.mark.parametrize(
    ("alias", "version"),
    [("ünï 生産", 2), ("\U0001d4ea" * 255, 20261121093000)],
    ids=["letters of any script", "a long alias, and a time as version"],
)
def test_every_record_is_read_as_it_was_written(ledger: Ledger, alias: str, version: int) -> None:
    known = AcceptedDigest("m", version, D1, None, False, "l", "c", 7.0, superseded=True)
    wrong = Quarantine("m", version, D1, "l", D2, "altered", 1.0, "poll", "c")
    rejection = Rejection("m", version, D1, "load_failed", "no", 1.0)
    hold = Hold("m", alias, version, version - 1, D1, "operator", 1.0, False, "a", "t")
    move = replace(MOVE, alias=alias, version=version, previous_version=version - 1, creation="c")
    move = replace(move, durations_s={"confirm": 0.25, "activate": 0.1}, pinned=True)
    attempt = replace(TRY, alias=alias, version=version)
    ledger.accept(known)
    ledger.quarantine(wrong)
    ledger.reject(rejection)
    ledger.hold(hold)
    ledger.activated(move)
    ledger.attempted(attempt)
    assert ledger.view() == LedgerView(
        accepted={("m", version): known},
        quarantines={("m", version): wrong},
        rejections={ArtifactRef("m", version, D1): rejection},
        holds={AliasRef("m", alias): hold},
        last_active={AliasRef("m", alias): move},
    )
    assert (ledger.activations_of("m", alias), ledger.attempts_of("m")) == ([move], [attempt])
    listed = AspiredModel("m", {version: AspiredVersion("m", version, "l")}, {alias: version})
    ledger.remember_listing(Aspired({"m": listed}, 1.0))
    assert ledger.last_listing() == Aspired({"m": listed}, 1.0)
    ledger.forget_accepted({("m", version)})
    assert ledger.end_quarantine("m", version)
    assert ledger.end_rejection("m", version)
    ledger.retire({AliasRef("m", alias)})
    assert ledger.view().last_active[AliasRef("m", alias)].retired_at == 100.0


def test_of_versions_that_are_gone_the_newest_pins_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_GONE_DIGESTS", 20)
    ticks = count()
    clock = lambda: float(next(ticks))  # noqa: E731 - shorter than its name
    with opened(database_url, "a", clock) as ledger, opened(database_url, "b", clock) as other:
        for one in (ledger, other):
            one.accept(AcceptedDigest("kept", 1, D1, None, False, None))
            one.accept(AcceptedDigest("m", 9, D1, None, False, None))
        for number in range(20):
            ledger.accept(AcceptedDigest("m", 1000 - number, D1, None, False, None))
        ledger.forget_accepted({("m", number) for number in range(1, 1001)})
        left = ledger.view().accepted
        assert (len(left), ("kept", 1) in left, ("m", 9) in left) == (21, True, False)
        assert len(other.view().accepted) == 2


@pytest.mark.integration
def test_what_the_database_cannot_hold_is_no_outage(postgresql_server: Postgres) -> None:
    with opened(postgresql_server.empty_database()) as ledger:
        with pytest.raises(LedgerError, match="cannot hold this"):
            ledger.accept(AcceptedDigest("m", 2**63, D1, None, False, None))
        assert not ledger._database._suspect
        ledger.accept(AcceptedDigest("m", 1, D1, None, False, None))


def test_a_quarantine_counts_until_released(ledger: Ledger) -> None:
    first = Quarantine("m", 1, None, None, D2, "wrong", 1.0)
    ledger.quarantine(first)
    ledger.quarantine(replace(first, reason="wrong again"))
    assert ledger.view().quarantines[("m", 1)].reason == "wrong again"
    assert ledger.end_quarantine("m", 1)
    assert not ledger.end_quarantine("m", 1)
    assert ledger.view().quarantines == {}


def test_a_retry_is_in_history_and_about_the_bytes_that_it_names(ledger: Ledger) -> None:
    one = Rejection("m", 1, D1, "load_failed", "no", 1.0, "these libraries")
    other = replace(one, digest=D2, libraries=None)
    for rejection in (one, other):
        ledger.reject(rejection)
    assert ledger.view().rejections == {("m", 1, D1): one, ("m", 1, D2): other}
    assert ledger.decisions_of("m") == []
    assert ledger.end_rejection("m", 1, D2, ended_by="restart")
    assert not ledger.end_rejection("m", 1, D2, ended_by="restart")
    assert ledger.view().rejections == {("m", 1, D1): one}
    assert ledger.end_rejection("m", 1, ended_by="operator")
    told = {(d.what, d.version, d.asked_by, d.at) for d in ledger.decisions_of("m")}
    assert told == {("retry", 1, "restart", 100.0), ("retry", 1, "operator", 100.0)}
    reasons = {d.asked_by: d.reason for d in ledger.decisions_of("m")}
    assert reasons["operator"] is None
    assert "other libraries" in str(reasons["restart"])


def test_a_hold_that_another_has_replaced_is_not_released(ledger: Ledger) -> None:
    first = Hold("m", "champion", 2, 1, D1, "operator", 1763726400.123457, lasting=True)
    second = replace(first, at=1763726400.123458)
    ledger.hold(first)
    ledger.hold(second)
    assert not ledger.end_hold(first)
    assert ledger.view().holds == {("m", "champion"): second}
    assert ledger.end_hold(second)
    assert ledger.view().holds == {}


BY_RULE = Rollback(
    activation=Activation("m", "champion", 1, D1, 2, D2, "gateway", 7.25, 4, reason="it fails"),
    rejection=Rejection("m", 2, D2, "live", "it fails", 7.25),
    hold=Hold("m", "champion", 2, 1, D1, "gateway", 7.25),
)


def test_a_rollback_by_rule_is_recorded_once_and_whole(ledger: Ledger) -> None:
    assert ledger.rolled_back(BY_RULE) is True
    assert ledger.rolled_back(BY_RULE) is False
    view = ledger.view()
    assert view == LedgerView().with_rollback(BY_RULE)
    assert view.automatic_rollbacks == {(AliasRef("m", "champion"), 7.25)}
    assert [one.reason for one in ledger.activations_of("m")] == ["it fails"]
    assert [(one.what, one.asked_by) for one in ledger.decisions_of("m")] == [("hold", "gateway")]


def test_what_was_recorded_of_a_rule_is_known_when_it_is_over(ledger: Ledger) -> None:
    ledger.rolled_back(BY_RULE)
    assert ledger.end_hold(BY_RULE.hold) is True
    view = ledger.view()
    assert (view.holds, view.automatic_rollbacks) == ({}, {(AliasRef("m", "champion"), 7.25)})
    assert list(view.rejections) == [("m", 2, D2)], "the registry has only moved on"
    assert ledger.rolled_back(BY_RULE) is False
    again = replace(BY_RULE, hold=replace(BY_RULE.hold, at=8.5))
    assert ledger.rolled_back(again) is True


def test_an_operator_who_ends_it_lets_the_version_try_again(ledger: Ledger) -> None:
    other = Rejection("m", 3, D1, "load_failed", "no", 1.0)
    ledger.reject(other)
    ledger.rolled_back(BY_RULE)
    ledger.end_hold(BY_RULE.hold, "operator")
    assert ledger.view().rejections == {("m", 3, D1): other}


def test_an_operators_hold_stays_when_a_rule_acts(ledger: Ledger) -> None:
    pin = Hold("m", "champion", 2, 5, D1, "operator", 7.0, lasting=True)
    ledger.hold(pin)
    assert ledger.rolled_back(BY_RULE) is True
    view = ledger.view()
    assert view.holds == {("m", "champion"): pin}
    assert view.automatic_rollbacks == {(AliasRef("m", "champion"), 7.25)}
    assert ("m", 2, D2) in view.rejections


def test_where_the_registry_points_is_noted_in_a_hold_once(ledger: Ledger) -> None:
    hold = Hold("m", "champion", None, 1, D1, "operator", 1.5)
    ledger.hold(hold)
    assert ledger.note_aspired(hold, 2)
    assert not ledger.note_aspired(hold, 3)
    assert not ledger.note_aspired(replace(hold, at=2.5), 3)
    assert ledger.view().holds == {("m", "champion"): replace(hold, aspired_version=2)}
    assert ledger.end_hold(hold)  # the same decision, whatever was learned since


def test_the_last_activation_of_each_alias_counts(ledger: Ledger) -> None:
    ledger.activated(MOVE)
    ledger.activated(replace(MOVE, alias="b"))
    second = replace(MOVE, version=2, digest=D2, previous_version=1, previous_digest=D1)
    ledger.activated(second)
    assert ledger.view().last_active[AliasRef("m", "champion")] == second
    assert ledger.activations_of("m", "champion") == [second, MOVE]
    assert len(ledger.activations_of(None)) == 3


def test_a_reason_of_any_length_is_kept_short(ledger: Ledger) -> None:
    ledger.attempted(replace(TRY, outcome="failed", reason="x" * 100_000))
    (kept,) = ledger.attempts_of("m")
    assert len(str(kept.reason)) == 2000
    assert kept.durations_s == {"fetch": 0.5}


def test_history_is_bounded_and_the_newest_stays(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_ACTIVATIONS", 20)
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_ATTEMPTS", 50)
    for number in range(1, 31):
        ledger.activated(replace(MOVE, version=number))
    for number in range(1, 61):
        ledger.attempted(replace(TRY, version=number))
    ledger.activated(replace(MOVE, model="quiet"))
    ledger.prune()
    assert len(ledger.activations_of("m", limit=1000)) == 20
    assert len(ledger.attempts_of("m", limit=1000)) == 50
    assert ledger.view().last_active[AliasRef("m", "champion")].version == 30
    assert ("quiet", "champion") in ledger.view().last_active


def test_what_was_decided_is_told_with_who_asked(ledger: Ledger) -> None:
    hold = Hold("m", "champion", 2, 1, D1, "operator", 10.0)
    ledger.hold(hold)
    pin = replace(hold, lasting=True, at=11.0, target_version=3)
    ledger.hold(pin)
    ledger.end_hold(pin, "operator")
    ledger.quarantine(Quarantine("m", 4, None, None, D2, "wrong", 12.0, "webhook"))
    ledger.end_quarantine("m", 4, "poll")
    ledger.freeze(Freeze("operator", 13.0))
    ledger.freeze(Freeze("operator", 14.0))
    assert ledger.view().freeze == Freeze("operator", 13.0)
    ledger.unfreeze("operator")
    assert ledger.view().freeze is None
    told = [(one.what, one.version, one.asked_by) for one in ledger.decisions_of("m")]
    assert set(told[:3]) == {
        ("unpin", 3, "operator"),
        ("retry", 4, "poll"),
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


# --- what could not be recorded in its time -------------------------------------------------------


def late(what: Literal["hold", "end_hold"], hold: Hold, at: float) -> HoldChange:
    return HoldChange(what, "operator", at, hold)


def decisions(ledger: Ledger) -> set[tuple[float, str, int | None]]:
    return {(one.at, one.what, one.version) for one in ledger.decisions_of("m")}


def test_late_decisions_are_recorded_with_their_times(ledger: Ledger) -> None:
    first, second = replace(HOLD, at=1.0), replace(HOLD, at=3.0, target_version=4, lasting=True)
    for change in (late("hold", first, 1.0), late("end_hold", first, 2.0)):
        ledger.record(change, late=True)
    ledger.record(late("hold", second, 3.0), late=True)
    ledger.record(HoldChange("freeze", "operator", 4.0), late=True)
    view = ledger.view()
    assert (view.holds[AliasRef("m", "champion")], view.freeze) == (second, Freeze("operator", 4.0))
    ledger.record(HoldChange("unfreeze", "operator", 5.0), late=True)
    assert ledger.view().freeze is None
    assert decisions(ledger) == {
        (1.0, "hold", 1),
        (2.0, "end_hold", 1),
        (3.0, "pin", 4),
        (4.0, "freeze", None),
        (5.0, "unfreeze", None),
    }


def test_a_late_decision_that_was_written_all_the_same_is_written_once(ledger: Ledger) -> None:
    change = late("hold", replace(HOLD, at=1.0), 1.0)
    frozen = HoldChange("freeze", "operator", 2.0)
    for one in (change, frozen):
        ledger.record(one, late=False)
        ledger.record(one, late=True)
    assert decisions(ledger) == {(1.0, "hold", 1), (2.0, "freeze", None)}
    ledger.activated(MOVE)
    ledger.activated_late([MOVE, replace(MOVE, alias="other")])
    assert ledger.activations_of("m") == [replace(MOVE, alias="other"), MOVE]


def test_a_newer_decision_wins_over_a_late_one_and_both_are_history(ledger: Ledger) -> None:
    newer = replace(HOLD, at=5.0, target_version=4, lasting=True)
    ledger.record(late("hold", newer, 5.0), late=False)
    ledger.record(late("hold", replace(HOLD, at=2.0), 2.0), late=True)
    assert ledger.view().holds[AliasRef("m", "champion")] == newer
    assert {(5.0, "pin", 4), (2.0, "hold", 1)} == decisions(ledger)
    ledger.record(HoldChange("freeze", "operator", 6.0), late=False)
    ledger.record(HoldChange("unfreeze", "operator", 7.0), late=False)
    ledger.record(HoldChange("freeze", "operator", 3.0), late=True)
    assert ledger.view().freeze is None
    ledger.record(HoldChange("freeze", "operator", 9.0), late=False)
    ledger.record(HoldChange("unfreeze", "operator", 8.0), late=True)
    assert ledger.view().freeze == Freeze("operator", 9.0)


def test_a_late_end_of_what_was_replaced_is_history_and_ends_nothing(ledger: Ledger) -> None:
    first, newer = replace(HOLD, at=1.0), replace(HOLD, at=5.0, target_version=4, lasting=True)
    ledger.record(late("hold", first, 1.0), late=False)
    ledger.record(late("hold", newer, 5.0), late=False)
    ledger.record(late("end_hold", first, 2.0), late=True)
    assert ledger.view().holds[AliasRef("m", "champion")] == newer
    assert (2.0, "end_hold", 1) in decisions(ledger)


def test_decisions_that_are_late_together_are_recorded_in_their_order(ledger: Ledger) -> None:
    standing = replace(HOLD, at=0.5, target_version=7)
    ledger.record(late("hold", standing, 0.5), late=False)
    ledger.record(late("hold", replace(HOLD, at=1.0, target_version=3), 1.0), late=True)
    last = replace(HOLD, at=3.0, target_version=2)
    ledger.record(late("hold", last, 3.0), late=True)
    assert ledger.view().holds[AliasRef("m", "champion")] == last


def test_an_alias_is_retired_until_it_is_activated_anew(ledger: Ledger) -> None:
    ledger.activated(MOVE)
    ledger.activated(replace(MOVE, alias="b"))
    ledger.retire({AliasRef("m", "champion"), AliasRef("other", "champion")})
    view = ledger.view().last_active
    assert (view[AliasRef("m", "champion")].retired_at, view[AliasRef("m", "b")].retired_at) == (
        100.0,
        None,
    )
    ledger.activated(MOVE)
    assert ledger.view().last_active[AliasRef("m", "champion")] == MOVE


def test_of_aliases_that_are_retired_the_newest_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_RETIRED_ALIASES", 20)
    ticks = count()
    clock = lambda: float(next(ticks))  # noqa: E731 - shorter than its name
    with opened(database_url, "a", clock) as ledger, opened(database_url, "b", clock) as other:
        for number in range(30):
            alias = f"build-{29 - number}"
            for one in (ledger, other):
                one.activated(replace(MOVE, alias=alias))
            ledger.activated(replace(MOVE, alias=alias, version=2))
            ledger.retire({("m", alias)})
        ledger.activated(MOVE)
        ledger.activated(replace(MOVE, alias="build-29"))  # it came back
        ledger.prune()
        left = {alias for _, alias in ledger.view().last_active}
        assert left == {"champion", "build-29", *(f"build-{number}" for number in range(20))}
        assert len(ledger.activations_of("m", limit=1000)) == 1 + 3 + 20 * 2
        assert len(other.view().last_active) == 30


def test_of_versions_that_are_gone_the_newest_refusals_stay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_GONE_REFUSALS", 20)
    for number in range(1, 31):
        ledger.quarantine(Quarantine("m", number, None, None, D2, "wrong", 1.0))
        ledger.reject(Rejection("m", number, D1, "load_failed", "no", 1.0))
    ledger.forget_refusals({("m", number) for number in range(2, 1000)})
    view = ledger.view()
    assert (len(view.quarantines), len(view.rejections)) == (21, 21)
    assert {("m", 1), ("m", 30)} <= view.quarantines.keys()
    assert ("m", 10) not in view.quarantines


def test_of_models_that_are_gone_the_newest_history_stays(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_GONE_MODELS", 20)
    for number in range(30):
        ledger.attempted(replace(TRY, model=f"m{number}", started_at=float(number)))
    ledger.activated(replace(MOVE, model="m0", at=1000.0))
    ledger.activated(replace(MOVE, model="m1", at=1.0))
    ledger.forget_history({"m2"})
    left = {one.model for one in ledger.attempts_of(None, limit=1000)}
    assert (len(left), {"m0", "m2", "m29"} <= left, "m1" in left) == (21, True, False)
    assert {one.model for one in ledger.activations_of(None)} == {"m0"}


def test_nodes_that_share_a_database_see_their_own(database_url: str) -> None:
    with opened(database_url, "a") as one, opened(database_url, "b") as other:
        one.activated(MOVE)
        one.attempted(TRY)
        one.freeze(Freeze("operator", 1.0))
        one.accept(AcceptedDigest("m", 1, D1, None, False, None))
        one.hold(Hold("m", "champion", 2, 1, D1, "operator", 1.0))
        other.hold(Hold("m", "champion", 2, 1, D1, "operator", 1.0))
        other.freeze(Freeze("operator", 2.0))
        assert other.view().accepted == {}
        assert other.activations_of("m") == []
        other.end_hold(Hold("m", "champion", 2, 1, D1, "operator", 1.0))
        other.unfreeze("operator")
        other.retire({("m", "champion")})
        other.forget_history(set())
        assert one.view().holds
        assert one.view().freeze == Freeze("operator", 1.0)
        assert one.view().last_active["m", "champion"].retired_at is None


OPEN = """
import sys
from registry_sync.ledger import Ledger
ledger = Ledger(sys.argv[1], node_id=sys.argv[2], clock=lambda: 1.0)
ledger.ensure()
ledger.view()
ledger.close()
"""


@pytest.mark.integration
def test_nodes_that_start_at_once_make_the_ledger_once(postgresql_server: Postgres) -> None:
    url = postgresql_server.empty_database()
    nodes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPEN, url, name],
            env=clean_environ({"PYTHONPATH": str(ROOT)}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for node in nodes:
        _, said = node.communicate(timeout=START_LIMIT_S)
        assert node.returncode == 0, said


@pytest.mark.integration
def test_ledger_fails_soon_without_its_server_and_recovers_with_it(
    postgresql_server: Postgres,
) -> None:
    with opened(postgresql_server.empty_database()) as ledger:
        ledger.activated(MOVE)
        postgresql_server.stop()
        try:
            for use in (ledger.view, ledger.ensure, lambda: ledger.attempted(TRY)):
                with pytest.raises(LedgerError):
                    use()
        finally:
            postgresql_server.start()
        assert ledger.ensure() is False  # nothing was lost, and nothing is filled again
        assert ledger.activations_of("m") == [MOVE]


def test_what_was_left_under_way_is_read_once_it_is_over(database_url: str) -> None:
    """A database that hung goes on with what it was sent: here, it is kept 0.3 s later."""
    with opened(database_url) as before, opened(database_url) as ledger:
        begun, ends = threading.Event(), threading.Event()

        def write() -> None:
            with before._database.transaction() as connection:
                before._activations.add(connection, values_of(MOVE))
                begun.set()
                ends.wait(0.3)

        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(write)
            begun.wait(5)
            ledger.abandon()()
            assert ledger.ensure() is False
            assert ledger.activations_of("m") == [MOVE]
            writing.result(timeout=5)


def test_holds_file_is_corrected_after_an_abandoned_write(
    database_url: str, tmp_path: Path
) -> None:
    file = HoldsFile(tmp_path / "holds.json")
    ledger = Ledger(database_url, node_id="a", clock=lambda: 100.0, holds_file=file)
    ledger.ensure()
    ledger.freeze(Freeze("operator", 1.0))
    file.write(HoldsSnapshot())  # as a write has left it that was undone
    ledger.abandon()()
    ledger.ensure()
    assert file.read() == HoldsSnapshot(freeze=Freeze("operator", 1.0))
    ledger.close()


def test_rejection_written_twice_is_in_force_once(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.reject(Rejection("m", 1, D1, "load_failed", "no", 1.0))
    assert len(ledger._rows(ledger._rejections.in_force())) == 1


def test_the_last_listing_is_remembered(ledger: Ledger) -> None:
    assert ledger.last_listing() is None
    version = AspiredVersion("a b?", 1, "s3://x", D1, {"t": "v"}, "READY", 5.0, "c", True, ("odd",))
    model = AspiredModel(
        "a b?",
        {1: version},
        {"champion": 1},
        unfollowed=frozenset({"next"}),
        unready=frozenset({2}),
        aliases_known=False,
        tags={"k": "v"},
        problems=("hm",),
    )
    listing = Aspired({"a b?": model}, listed_at=7.0)
    ledger.remember_listing(Aspired({}, 1.0))
    ledger.remember_listing(listing)
    assert ledger.last_listing() == listing


def test_a_release_before_can_read_the_last_listing() -> None:
    version = AspiredVersion("m", 1, "l", creation="c", stamp_fixed=True, stamp_problem="odd")
    (model,) = listing_values(Aspired({"m": AspiredModel("m", {1: version})}, 1.0))["body"][
        "models"
    ]
    known = {"version", "location", "expected_digest", "tags", "status", "created_at", "problems"}
    assert set(model["versions"][0]) == known, "what it does not know by name, it refuses"


def test_models_that_changed_are_remembered_beside_the_listing(ledger: Ledger) -> None:
    def at(version: int, name: str) -> AspiredModel:
        return AspiredModel(name, {version: AspiredVersion(name, version, "l")}, {"champion": 1})

    models = {name: at(1, name) for name in ("a", "b", "c")}
    ledger.remember_listing(Aspired(models, 7.0))
    ledger.remember_models({"a": at(2, "a"), "b": None, "d": at(1, "d")}, listed_at=7.0)
    ledger.remember_models({"a": at(3, "a")}, listed_at=8.0)
    expected = {"a": at(3, "a"), "c": models["c"], "d": at(1, "d")}
    assert ledger.last_listing() == Aspired(expected, 7.0)
    ledger.remember_listing(Aspired(models, 9.0))
    assert ledger.last_listing() == Aspired(models, 9.0), "what was beside it is over"
    ledger.remember_models({"c": None}, listed_at=8.0)
    assert ledger.last_listing() == Aspired(models, 9.0), "a release before has listed it since"


def test_a_few_models_are_viewed_as_they_are_among_all(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        ledger.activated(Activation(name, "champion", 1, D1, None, None, "poll", 1.0, 1))
        ledger.activated(Activation(name, "champion", 2, D1, 1, D1, "poll", 2.0, 2))
        ledger.accept(AcceptedDigest(name, 1, D1, None, False, None))
        ledger.hold(Hold(name, "champion", 2, 1, D1, "operator", 1.0))
        ledger.quarantine(Quarantine(name, 3, None, "l", D1, "wrong", 8.0))
        ledger.reject(Rejection(name, 4, D1, "load_failed", "no", 7.0))
    ledger.freeze(Freeze("operator", 2.0))
    whole, parts = ledger.view(), view_by_model(ledger.view())
    assert view_by_model(ledger.view({"a", "c", "none"})) == {
        name: parts[name] for name in ("a", "c")
    }
    views = ViewsByModel()
    assert views.take(whole) is None, "it is frozen from now on"
    assert views.whole() == whole
    assert views.take(whole) == frozenset()
    assert views.of("b") == replace(parts["b"], freeze=whole.freeze)
    assert not views.put("b", parts["b"])
    assert views.put("b", LedgerView())
    assert views.whole().holds.keys() == {("a", "champion"), ("c", "champion")}


def test_a_creation_has_the_digest_that_was_accepted_for_it_last() -> None:
    def of(model: str, digest: str, at: float | None) -> LedgerView:
        known = AcceptedDigest(model, 1, digest, None, False, None, creation="c", accepted_at=at)
        return LedgerView(accepted={(model, 1): known})

    views = ViewsByModel()
    assert views.accepted_for("c") is None
    for model, digest, at in (("a", D1, 5.0), ("b", D2, 7.0), ("undated", D1, None)):
        views.put(model, of(model, digest, at))
    assert (found := views.accepted_for("c")) is not None
    assert found.model == "b"
    views.put("b", LedgerView())
    assert (found := views.accepted_for("c")) is not None
    assert found.model == "a"
    for model in ("a", "undated"):
        views.put(model, LedgerView())
    assert views.accepted_for("c") is None
