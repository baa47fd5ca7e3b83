"""The table on disk: what was written comes back; what cannot be used is refused."""

import errno
import json

import pytest
from structlog.testing import capture_logs

from gateway.control_contract import ActiveAlias, AliasHold, Catalogue, CatalogueModel
from gateway.errors import TableFileError
from gateway.room import ReplicaKey
from gateway.routing import RouteTable
from gateway.sealed import seal
from gateway.table_file import TableFile
from tests.contracts.damage import ALTERED, DAMAGES

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
    body = {"format_version": 99, "active": "of another shape"}
    path.write_bytes(seal(json.dumps(body, indent=1).encode()))
    with pytest.raises(TableFileError, match="newer version"):
        file.load("champion")


def test_a_hold_as_an_older_gateway_wrote_it_down_is_one_still(tmp_path):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    path = tmp_path / "table.json"
    body = json.loads(path.read_text())
    kept = ("model", "alias", "digest", "reason")
    body["holds"] = [{name: body["holds"][0][name] for name in kept}]
    del body["sha256"]
    path.write_text(json.dumps(body))
    (hold,) = file.load("champion").holds
    assert (hold.digest, hold.reason, hold.version) == (DIGEST, "went back", None)


CACHES = ["catalogue.json", "hot.json"]
KEY = ReplicaKey("m", 3, DIGEST)


def with_caches(folder):
    file = TableFile(folder)
    file.save_table(a_table())
    file.save_catalogue(Catalogue(writer="w", epoch=4, models=[]).model_dump_json().encode())
    file.save_hot([KEY])
    return file


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("damage", [one for one in DAMAGES if one is not ALTERED], ids=str)
def test_a_damaged_cache_is_left_out_and_set_aside(tmp_path, damage, name):
    file = with_caches(tmp_path)
    damage.apply(tmp_path / name)
    with capture_logs() as logs:
        table = file.load("champion")
        hot = file.load_hot()
    assert table.active == a_table().active
    assert (table.catalogue is None, hot) == (
        (True, [KEY]) if name == "catalogue.json" else (False, [])
    )
    assert [entry["event"] for entry in logs] == ["file.damaged"]
    assert [(one.name, one.set_aside) for one in file.damaged()] == [(name, f"{name}.damaged-1")]
    with_caches(tmp_path)
    assert TableFile(tmp_path).load("champion").catalogue is not None
    assert TableFile(tmp_path).load_hot() == [KEY]


@pytest.mark.parametrize("shape", [{}, {"models": "of another shape"}, {"versions": 3}])
@pytest.mark.parametrize("name", CACHES)
def test_a_newer_cache_is_ignored_and_left_where_it_is(tmp_path, name, shape):
    file = with_caches(tmp_path)
    path = tmp_path / name
    version = {"contract_version": 99} if name == "catalogue.json" else {"format_version": 99}
    path.write_text(json.dumps({**json.loads(path.read_text()), **version, **shape}))
    with capture_logs() as logs:
        table, hot = file.load("champion"), file.load_hot()
    assert table.active == a_table().active
    assert (table.catalogue is None) == (name == "catalogue.json")
    assert (not hot) == (name == "hot.json")
    assert [entry["event"] for entry in logs] == ["file.ignored"]
    assert file.damaged() == []
    assert path.exists()


def test_a_cache_is_written_over_whatever_lies_there(tmp_path):
    for name in CACHES:
        (tmp_path / name).mkdir()
    assert with_caches(tmp_path).load_hot() == [KEY]


def test_a_disk_that_refuses_is_reported_and_the_old_table_stays(tmp_path, monkeypatch):
    file = TableFile(tmp_path)
    file.save_table(a_table())
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(TableFileError, match="cannot be written"):
        file.save_table(a_table())
    assert file.load("champion") == a_table()


def refuse(_descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")
