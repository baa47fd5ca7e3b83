"""The table on disk: what was written comes back; what cannot be used is refused."""

import json

import pytest
from structlog.testing import capture_logs

from gateway.control_contract import ActiveAlias, AliasHold, Catalogue, CatalogueModel
from gateway.errors import TableFileError
from gateway.routing import RouteTable
from gateway.table_file import TableFile

DIGEST = "sha256:" + "a" * 64


def a_table():
    entry = ActiveAlias(model="m", alias="champion", version=3, digest=DIGEST, since=5.0)
    hold = AliasHold(
        model="m",
        alias="champion",
        digest=DIGEST,
        reason="went back",
        version=4,
        since=6.5,
        to_version=3,
        to_digest=DIGEST,
        generation=7,
    )
    return RouteTable(
        default_alias="champion", generation=7, active={("m", "champion"): entry}, holds=(hold,)
    )


def test_a_node_without_files_starts_empty(tmp_path):
    assert TableFile(tmp_path).load("champion") == RouteTable(default_alias="champion")


def test_what_was_written_comes_back(tmp_path):
    catalogue = Catalogue(writer="w", epoch=4, models=[CatalogueModel(name="m", versions=[])])
    file = TableFile(tmp_path)
    file.save_table(a_table())
    file.save_catalogue(catalogue.model_dump_json().encode())
    assert file.load("champion") == a_table().with_catalogue(catalogue)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_newer_format_is_refused(tmp_path):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    path = tmp_path / "table.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(TableFileError, match="newer version"):
        file.load("champion")


def test_a_hold_as_an_older_gateway_wrote_it_down_is_one_still(tmp_path):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    path = tmp_path / "table.json"
    body = json.loads(path.read_text())
    kept = ("model", "alias", "digest", "reason")
    body["holds"] = [{name: body["holds"][0][name] for name in kept}]
    path.write_text(json.dumps(body))
    (hold,) = file.load("champion").holds
    assert (hold.digest, hold.reason, hold.version) == (DIGEST, "went back", None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}', '{"generation": "x"}'])
def test_a_damaged_table_is_refused_and_says_what_to_do(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(TableFileError, match="remove it"):
        TableFile(tmp_path).load("champion")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"writer": 1}'])
def test_a_damaged_catalogue_is_left_out_and_reported(tmp_path, content):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    (tmp_path / "catalogue.json").write_bytes(content)
    with capture_logs() as logs:
        assert file.load("champion") == a_table()
    assert [entry["event"] for entry in logs] == ["catalogue.unreadable"]


def test_a_catalogue_that_cannot_be_read_is_left_out(tmp_path):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    (tmp_path / "catalogue.json").mkdir()
    assert file.load("champion") == a_table()


def test_a_newer_catalogue_is_refused(tmp_path):
    file = TableFile(tmp_path)
    file.save_catalogue(Catalogue(writer="w", epoch=4, models=[]).model_dump_json().encode())
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "contract_version": 99}))
    with pytest.raises(TableFileError, match="newer version"):
        file.load("champion")


def test_a_disk_that_refuses_is_reported_and_the_old_table_stays(tmp_path):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    (tmp_path / "table.tmp").mkdir()  # the way of every write
    with pytest.raises(TableFileError, match="cannot be written"):
        file.save_table(a_table())
    assert file.load("champion") == a_table()
