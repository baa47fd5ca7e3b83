"""A rollback outlives the loss of the ledger; a hold that was released does not come back."""

import errno
import json
import os
from dataclasses import replace

import pytest

from gateway.system.files.damaged_files import DamagedFiles
from gateway.system.files.sealed import seal
from registry_sync.domain import (
    Activation,
    Freeze,
    Hold,
    HoldChange,
    HoldsSnapshot,
    Initiator,
)
from registry_sync.errors import LedgerError
from registry_sync.ledger.holds_file import DamagedHoldsError, HoldsFile
from registry_sync.ledger.ledger import Ledger
from tests.contracts.damage import DAMAGES
from tests.fakes.disk import fill_disk

DIGEST = "sha256:" + "a" * 64


def a_hold(alias="champion"):
    return Hold("churn", alias, 2, 1, DIGEST, Initiator.OPERATOR, 5.0)


def open_ledger(folder, damaged=None):
    ledger = Ledger(
        f"sqlite:///{folder}/ledger.db",
        node_id="n",
        clock=lambda: 7.0,
        holds_file=HoldsFile(folder / "holds.json", damaged),
    )
    ledger.ensure()
    return ledger


def lose(ledger, folder):
    ledger.close()
    for path in folder.glob("ledger.db*"):
        path.unlink()


def test_a_released_hold_does_not_come_back(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    ledger.hold(a_hold("shadow"))
    ledger.end_hold(a_hold())
    lose(ledger, tmp_path)
    again = open_ledger(tmp_path)
    assert list(again.view().holds) == [("churn", "shadow")]
    again.close()


def test_refused_copy_is_reported_and_written_when_there_is_room(tmp_path, monkeypatch):
    damaged = DamagedFiles()
    ledger = open_ledger(tmp_path, damaged)
    ledger.hold(a_hold())
    with monkeypatch.context() as full:
        fill_disk(full)
        ledger.hold(a_hold("shadow"))
        ledger.end_hold(a_hold())
        ledger.ensure()
        assert [(one.name, one.reason) for one in damaged.all()] == [
            ("holds.json", "cannot be written: No space left on device")
        ]
    assert list(ledger.view().holds) == [("churn", "shadow")]
    assert HoldsFile(tmp_path / "holds.json").read() == HoldsSnapshot((a_hold(),))
    ledger.ensure()
    assert HoldsFile(tmp_path / "holds.json").read() == HoldsSnapshot((a_hold("shadow"),))
    assert damaged.all() == []
    ledger.close()


CHANGE = HoldChange("freeze", "operator", 8.0)
MOVE = Activation("churn", "champion", 1, DIGEST, None, None, "poll", 1.0, 1, {"stage": 0.5})


def test_what_the_ledger_has_not_taken_stays_beside_what_stands(tmp_path):
    file = HoldsFile(tmp_path / "holds.json")
    file.keep([CHANGE], [MOVE])
    file.copy(HoldsSnapshot((a_hold(),)))
    assert file.read() == HoldsSnapshot((a_hold(),), None, (CHANGE,), (MOVE,))
    file.keep([], [])
    assert file.read() == HoldsSnapshot((a_hold(),))


def refuse_to_open(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)


def test_a_copy_waits_where_the_file_cannot_be_read_now(tmp_path, monkeypatch):
    """What the ledger has not taken may stand in it, and nowhere else."""
    file = HoldsFile(tmp_path / "holds.json")
    file.keep([CHANGE], [MOVE])
    with monkeypatch.context() as broken:
        broken.setattr(HoldsFile, "write", lambda *_: pytest.fail("it is replaced unread"))
        refuse_to_open(broken)
        with pytest.raises(LedgerError, match="cannot be read now"):
            file.copy(HoldsSnapshot((a_hold(),)))
    assert file.read() == HoldsSnapshot((), None, (CHANGE,), (MOVE,))


def test_a_copy_that_waited_is_written_once_the_file_can_be_read(tmp_path, monkeypatch):
    ledger = open_ledger(tmp_path)
    file = HoldsFile(tmp_path / "holds.json")
    file.keep([CHANGE], [MOVE])
    read = HoldsFile.read

    def refuse(_file):
        raise LedgerError("it cannot be read now: Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(HoldsFile, "read", refuse)
        ledger.hold(a_hold())
    assert read(file) == HoldsSnapshot((), None, (CHANGE,), (MOVE,))
    ledger.ensure()
    assert read(file) == HoldsSnapshot((a_hold(),), None, (CHANGE,), (MOVE,))
    ledger.close()


def test_a_copy_takes_a_damaged_files_place_and_no_newer_ones(tmp_path):
    path = tmp_path / "holds.json"
    path.write_text("{")
    HoldsFile(path).copy(HoldsSnapshot((a_hold(),)))
    assert HoldsFile(path).read() == HoldsSnapshot((a_hold(),))
    newer = seal(b'{\n "format_version": 9,\n "holds": "of another shape"\n}')
    path.write_bytes(newer)
    with pytest.raises(LedgerError, match="newer release"):
        HoldsFile(path).copy(HoldsSnapshot((a_hold(),)))
    assert path.read_bytes() == newer


def test_what_is_kept_takes_no_damaged_files_place(tmp_path):
    path = tmp_path / "holds.json"
    path.write_text("{")
    with pytest.raises(DamagedHoldsError):
        HoldsFile(path).keep([CHANGE], [])
    assert path.read_text() == "{"


def test_a_ledger_with_a_history_takes_nothing_from_the_file(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.activated(Activation("churn", "champion", 1, DIGEST, None, None, Initiator.POLL, 1.0, 1))
    ledger.close()
    HoldsFile(tmp_path / "holds.json").write(HoldsSnapshot((a_hold(),)))
    again = open_ledger(tmp_path)
    assert again.view().holds == {}
    again.close()


@pytest.mark.parametrize(
    "members",
    [
        {"holds": 3},
        {"holds": [3]},
        {"holds": [{"model": "churn"}]},
        {"holds": [], "freeze": "yes"},
        {"freeze": None},
    ],
)
def test_other_members_than_holds_are_damage(tmp_path, members):
    path = tmp_path / "holds.json"
    path.write_text(json.dumps({"format_version": 3, **members}))
    with pytest.raises(DamagedHoldsError, match=r"has no (list of|valid) holds"):
        HoldsFile(path).read()


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_with_its_ledger_a_damaged_file_costs_nothing(tmp_path, damage):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    ledger.close()
    damage.apply(tmp_path / "holds.json")
    damaged = DamagedFiles()
    again = open_ledger(tmp_path, damaged)
    assert list(again.view().holds) == [("churn", "champion")]
    assert again.view().freeze is None
    again.close()
    assert HoldsFile(tmp_path / "holds.json").read() == HoldsSnapshot((a_hold(),))
    (told,) = damaged.all()
    assert (told.name, told.set_aside) == ("holds.json", "holds.json.damaged-1")
    assert "nothing is lost" in told.instead


def test_a_file_that_is_gone_is_written_anew(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    ledger.close()
    (tmp_path / "holds.json").unlink()
    open_ledger(tmp_path).close()
    assert HoldsFile(tmp_path / "holds.json").read() == HoldsSnapshot((a_hold(),))


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_lost_with_its_ledger_it_leaves_the_node_frozen(tmp_path, damage):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    lose(ledger, tmp_path)
    damage.apply(tmp_path / "holds.json")
    damaged = DamagedFiles()
    again = open_ledger(tmp_path, damaged)
    assert again.view().freeze == Freeze(Initiator.RECOVERY, 7.0)
    assert "until `registry-gateway unfreeze`" in damaged.all()[0].instead
    again.unfreeze(Initiator.OPERATOR)
    again.close()
    once_more = open_ledger(tmp_path)
    assert once_more.view().freeze is None
    once_more.close()


def test_a_full_disk_keeps_no_ledger_from_being_opened(tmp_path, monkeypatch):
    ledger = open_ledger(tmp_path)
    ledger.hold(a_hold())
    ledger.close()
    (tmp_path / "holds.json").write_text("{")
    fill_disk(monkeypatch)
    again = open_ledger(tmp_path)
    assert list(again.view().holds) == [("churn", "champion")]
    again.close()


@pytest.mark.parametrize("content", ['{"format_version": 9}', '{"format_version": 9, "holds": []}'])
def test_what_only_claims_to_be_newer_is_damaged(tmp_path, content):
    path = tmp_path / "holds.json"
    path.write_text(content)
    with pytest.raises(DamagedHoldsError, match="has no checksum"):
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
    assert HoldsFile(path).read() == HoldsSnapshot((a_hold(),), None)


def test_a_file_from_before_the_first_release_has_its_words(tmp_path):
    path = tmp_path / "holds.json"
    by_gateway = replace(a_hold(), asked_by=Initiator.GATEWAY)
    ended = HoldChange("end_hold", Initiator.OPERATOR, 6.0, by_gateway)
    written = HoldsSnapshot((by_gateway,), changes=(ended,))
    HoldsFile(path).write(written)
    former = json.loads(path.read_text().replace('"gateway"', '"rule"'))
    del former["sha256"]
    path.write_text(json.dumps({**former, "format_version": 4}).replace('"end_hold"', '"release"'))
    assert HoldsFile(path).read() == written


def test_a_pin_and_a_freeze_survive_the_loss_of_the_ledger(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.hold(replace(a_hold(), lasting=True))
    ledger.freeze(Freeze(Initiator.OPERATOR, 6.0))
    lose(ledger, tmp_path)
    again = open_ledger(tmp_path)
    view = again.view()
    assert view.holds == {("churn", "champion"): replace(a_hold(), lasting=True)}
    assert view.freeze == Freeze("operator", 6.0)
    again.unfreeze(Initiator.OPERATOR)
    lose(again, tmp_path)
    once_more = open_ledger(tmp_path)
    assert once_more.view().freeze is None
    once_more.close()
