"""The table on disk: what was written comes back; what cannot be used is refused."""

import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from gateway.contract.catalogue import Catalogue, CatalogueModel, ModelChange, Policy
from gateway.contract.node_state import ActiveAlias, RefusedDigest
from gateway.contract.references import ArtifactRef
from gateway.errors import TableFileError
from gateway.routing.route_table import RouteTable
from gateway.routing.table_changes import TableChange
from gateway.routing.table_file import TableFile
from tests.contracts.damage import ALTERED, DAMAGES
from tests.fakes.disk import fill_disk, unreadable

DIGEST = "sha256:" + "a" * 64


def a_table():
    entry = ActiveAlias(model="m", alias="champion", version=3, digest=DIGEST, since=5.0)
    hold = RefusedDigest(
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
        default_alias="champion",
        generation=7,
        active={entry.alias_ref: entry},
        refused_digests=(hold,),
    )


def test_a_node_without_files_starts_empty(tmp_path):
    assert TableFile(tmp_path).load("champion") == RouteTable(default_alias="champion")


def test_table_is_read_back(tmp_path):
    catalogue = Catalogue(writer="w", epoch=4, models=[CatalogueModel(name="m", versions=[])])
    file = TableFile(tmp_path)
    file.save_change(a_table(), a_table().active)
    file.keep_catalogue(catalogue.model_dump_json().encode())
    assert file.load("champion") == a_table().with_catalogue(catalogue)
    assert not list(tmp_path.glob("*.tmp"))


def test_hold_of_an_older_gateway_is_read(tmp_path):
    file = TableFile(tmp_path)
    file.save_change(a_table(), a_table().active)
    path = tmp_path / "table.json"
    body = json.loads(path.read_text())
    kept = ("model", "alias", "digest", "reason")
    body["refused_digests"] = [{name: body["refused_digests"][0][name] for name in kept}]
    del body["sha256"]
    path.write_text(json.dumps(body))
    (hold,) = file.load("champion").refused_digests
    assert (hold.digest, hold.reason, hold.version) == (DIGEST, "went back", None)


def test_a_table_from_before_the_first_release_has_its_words(tmp_path):
    policy = Policy(keep_resident=True)
    entry = (
        a_table()
        .active["m", "champion"]
        .model_copy(update={"asked_by": "gateway", "policy": policy})
    )
    table = replace(a_table(), active={entry.alias_ref: entry})
    TableFile(tmp_path).save_change(table, table.active)
    path = tmp_path / "table.json"
    former = path.read_text().replace('"refused_digests"', '"holds"').replace('"gateway"', '"rule"')
    body = json.loads(former.replace('"keep_resident"', '"pin"'))
    del body["sha256"]
    path.write_text(json.dumps(body))
    assert TableFile(tmp_path).load("champion") == table
    assert TableChange.model_validate(body | {"number": 1}).refused_digests == list(
        table.refused_digests
    )


CACHES = ["catalogue.json", "hot.json"]
KEY = ArtifactRef("m", 3, DIGEST)


def with_caches(folder):
    file = TableFile(folder)
    file.save_change(a_table(), a_table().active)
    file.keep_catalogue(Catalogue(writer="w", epoch=4, models=[]).model_dump_json().encode())
    file.save_hot([KEY])
    return file


@pytest.fixture
def file(tmp_path):
    return with_caches(tmp_path)


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("damage", [one for one in DAMAGES if one is not ALTERED], ids=str)
def test_a_damaged_cache_is_left_out_and_set_aside(file, tmp_path, damage, name):
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


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_that_cannot_be_read_is_left_where_it_is(file, tmp_path, monkeypatch, name):
    before = sorted(one.name for one in tmp_path.iterdir())
    with unreadable(monkeypatch, name):
        table, hot = file.load("champion"), file.load_hot()
    assert (table.catalogue is None, hot == []) == (name == "catalogue.json", name == "hot.json")
    (told,) = file.damaged()
    assert (told.name, told.set_aside) == (name, None)
    assert sorted(one.name for one in tmp_path.iterdir()) == before
    assert TableFile(tmp_path).load("champion").catalogue is not None
    assert TableFile(tmp_path).load_hot() == [KEY]


@pytest.mark.parametrize("shape", [{}, {"models": "of another shape"}, {"versions": 3}])
@pytest.mark.parametrize("name", CACHES)
def test_a_newer_cache_is_ignored_and_left_where_it_is(file, tmp_path, name, shape):
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


def test_refused_file_is_reported_and_written_when_there_is_room(file, tmp_path, monkeypatch):
    newer = Catalogue(writer="w", epoch=5, models=[CatalogueModel(name="m", versions=[])])
    learned = replace(a_table(), generation=8)
    with monkeypatch.context() as full, capture_logs() as logs:
        fill_disk(full)
        for _ in range(3):
            file.keep_catalogue(newer.model_dump_json().encode())
            file.keep_change(learned, learned.active)
            file.write_due()
        with pytest.raises(TableFileError):
            file.save_change(replace(a_table(), generation=9), ())  # an activation: refused
    told = [one["file"].rpartition("/")[2] for one in logs if one["event"] == "file.write_failed"]
    assert told == ["catalogue.json", "table.changes"]
    assert {one.name for one in file.damaged()} == {"catalogue.json", "table.changes"}
    assert all("No space left" in one.reason for one in file.damaged())
    file.write_due()
    assert file.damaged() == []
    assert TableFile(tmp_path).load("champion") == learned.with_catalogue(newer)


@pytest.mark.parametrize("changes", [0, 1])
def test_table_that_only_its_changes_have_is_written_as_a_whole_again(tmp_path, changes):
    TableFile(tmp_path).save_change(a_table(), a_table().active)
    whole = tmp_path / "table.json"
    whole.write_text("damaged")
    file = TableFile(tmp_path)
    table = file.load("champion")
    assert table == a_table()
    assert not whole.exists(), "a start writes nothing"
    if changes:
        entry = ActiveAlias(model="n", alias="champion", version=1, digest=DIGEST, since=6.0)
        table = table.with_active(entry)
        file.save_change(table, [entry.alias_ref])
    file.write_due()
    for path in tmp_path.glob("table.changes*"):
        path.unlink()
    assert TableFile(tmp_path).load("champion") == table


def test_next_write_has_what_was_due(file, tmp_path, monkeypatch):
    (key, entry), *_ = a_table().active.items()
    learned = a_table().active | {key: entry.model_copy(update={"policy": Policy(timeout_s=77)})}
    with monkeypatch.context() as full:
        fill_disk(full)
        file.keep_change(replace(a_table(), generation=8, active=learned), [key])
    newest = replace(a_table(), generation=9, active=learned)
    file.save_change(newest, ())
    file.write_due()
    found = TableFile(tmp_path).load("champion")
    assert (found.generation, found.active) == (9, newest.active)


def test_models_are_written_after_the_catalogue_that_they_belong_to(file, tmp_path, monkeypatch):
    newer = Catalogue(writer="w", epoch=5, models=[])
    model = CatalogueModel(name="new", versions=[])
    change = ModelChange(writer="w", epoch=5, revision=1, name="new", model=model)
    with monkeypatch.context() as full:
        fill_disk(full)
        file.keep_catalogue(newer.model_dump_json().encode())
    file.keep_model(change.model_dump_json().encode())
    assert not TableFile(tmp_path).load("champion").knows("new", None)
    file.write_due()
    assert TableFile(tmp_path).load("champion").knows("new", None)
