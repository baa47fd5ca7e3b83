"""A rollback outlives the loss of the ledger; a hold that was released does not come back."""

import json
import time
from dataclasses import replace

import pytest

from registry_sync.errors import LedgerError
from registry_sync.holds_file import HoldsFile
from registry_sync.ledger import Ledger
from registry_sync.records import Activation, AskedBy, Freeze, Hold, Standing

DIGEST = "sha256:" + "a" * 64


def a_hold(alias="champion"):
    return Hold("churn", alias, 2, 1, DIGEST, AskedBy.OPERATOR, 5.0)


def open_ledger(folder):
    ledger = Ledger(
        f"sqlite:///{folder}/ledger.db",
        node_id="n",
        clock=time.time,
        holds_file=HoldsFile(folder / "holds.json"),
    )
    ledger.ensure()
    return ledger


def lose(ledger, folder):
    ledger.close()
    for path in folder.glob("ledger.db*"):
        path.unlink()


def test_a_hold_survives_the_loss_of_the_ledger(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    lose(ledger, tmp_path)
    again = open_ledger(tmp_path)
    assert again.view().holds == {("churn", "champion"): a_hold()}
    again.close()


def test_a_released_hold_does_not_come_back(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    ledger.hold(a_hold("shadow"))
    ledger.release_hold(a_hold())
    lose(ledger, tmp_path)
    again = open_ledger(tmp_path)
    assert list(again.view().holds) == [("churn", "shadow")]
    again.close()


def test_a_hold_changes_only_together_with_its_copy(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    (tmp_path / "holds.part").mkdir()  # where the file is written: as bad as a full disk
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.hold(a_hold("shadow"))
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.release_hold(a_hold())
    assert list(ledger.view().holds) == [("churn", "champion")]
    (tmp_path / "holds.part").rmdir()
    ledger.release_hold(a_hold())
    assert ledger.view().holds == {}
    ledger.close()


def test_a_ledger_with_a_history_takes_nothing_from_the_file(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.activated(Activation("churn", "champion", 1, DIGEST, None, None, AskedBy.POLL, 1.0, 1))
    ledger.close()
    HoldsFile(tmp_path / "holds.json").write(Standing((a_hold(),)))
    again = open_ledger(tmp_path)
    assert again.view().holds == {}
    again.close()


def test_a_damaged_file_says_what_to_do(tmp_path):
    path = tmp_path / "holds.json"
    path.write_text("{")
    with pytest.raises(LedgerError, match="remove it"):
        HoldsFile(path).read()


def test_a_lost_ledger_is_not_used_until_its_holds_can_be_read(tmp_path):
    path = tmp_path / "holds.json"
    path.write_text("{")
    ledger = Ledger(
        f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=time.time, holds_file=HoldsFile(path)
    )
    for _ in range(2):
        with pytest.raises(LedgerError, match="remove it"):
            ledger.ensure()
    HoldsFile(path).write(Standing((a_hold(),)))
    assert [ledger.ensure(), ledger.ensure()] == [True, False]
    assert ledger.view().holds == {("churn", "champion"): a_hold()}
    ledger.close()


def test_a_newer_file_is_refused(tmp_path):
    path = tmp_path / "holds.json"
    path.write_text('{"format_version": 9, "holds": []}')
    with pytest.raises(LedgerError, match="newer release"):
        HoldsFile(path).read()


def test_what_the_release_before_wrote_is_read(tmp_path):
    path = tmp_path / "holds.json"
    hold = {
        "model": "churn",
        "alias": "champion",
        "aspired_version": 2,
        "target_version": 1,
        "target_digest": DIGEST,
        "asked_by": "operator",
        "at": 5.0,
    }
    path.write_text(json.dumps({"format_version": 1, "holds": [hold]}))
    assert HoldsFile(path).read() == Standing((a_hold(),), None)


def test_a_pin_and_a_freeze_survive_the_loss_of_the_ledger(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(replace(a_hold(), lasting=True))
    ledger.freeze(Freeze(AskedBy.OPERATOR, 6.0))
    lose(ledger, tmp_path)
    again = open_ledger(tmp_path)
    view = again.view()
    assert view.holds == {("churn", "champion"): replace(a_hold(), lasting=True)}
    assert view.freeze == Freeze("operator", 6.0)
    again.unfreeze(AskedBy.OPERATOR)
    lose(again, tmp_path)
    once_more = open_ledger(tmp_path)
    assert once_more.view().freeze is None
    once_more.close()
