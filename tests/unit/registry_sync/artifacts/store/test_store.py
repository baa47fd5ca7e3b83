"""Complete or not there, at any moment."""

import errno
import hashlib
import json
import os
import shutil
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.system.files.atomic_files import sync_folder
from gateway.system.files.damaged_files import DamagedFiles
from gateway.system.files.sealed import seal
from registry_sync.artifacts import store as artifact_store
from registry_sync.artifacts.file_tree import remove
from registry_sync.artifacts.store import Acceptance, ArtifactStore, StoreUse
from registry_sync.errors import StoreError
from tests.contracts.damage import DAMAGES, Damage
from tests.fakes.artifacts import FILES, fetched

ACCEPTANCE = Acceptance("m", 1, "sha256:listing", "sha256:" + "1" * 64, stamped=True)
DESCRIPTION = {"format_version": 1, "flavor": "sklearn"}


@pytest.fixture
def store(tmp_path: Path):
    return opened(tmp_path)


def opened(node_dir: Path, at: float = 100.0, damaged_files=None):
    store = ArtifactStore(node_dir, clock=lambda: at, damaged_files=damaged_files)
    store.open()
    return store


def add(store, files=None, acceptance=ACCEPTANCE):
    with store.incoming() as path:
        return store.add(fetched(path, files), DESCRIPTION, acceptance)


@pytest.fixture
def artifact(store):
    return add(store)


def tree(folder: Path):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_artifact_comes_in_whole_and_read_only(artifact, store, tmp_path):
    hexadecimal = artifact.digest.removeprefix("sha256:")
    assert artifact.path == tmp_path / "artifacts" / hexadecimal
    assert tree(artifact.path) == FILES
    manifest = tmp_path / "artifacts" / f"{hexadecimal}.manifest"
    assert hashlib.sha256(manifest.read_bytes()).hexdigest() == hexadecimal
    assert store.manifest(artifact.digest).digest == artifact.digest
    for path in [artifact.path, *artifact.path.rglob("*"), manifest]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222, path
    assert list((tmp_path / "incoming").iterdir()) == []
    record = json.loads((tmp_path / "artifacts" / f"{hexadecimal}.json").read_bytes())
    assert len(record.pop("sha256")) == 64
    assert record == {
        "format_version": 1,
        "flavor": "sklearn",
        "digest": artifact.digest,
        "size_bytes": 1000 + len(FILES["MLmodel"]),
        "stored_at": 100.0,
        "accepted_for": [
            {
                "model": "m",
                "version": 1,
                "listing": "sha256:listing",
                "expected_digest": "sha256:" + "1" * 64,
                "stamped": True,
                "creation": None,
                "accepted_at": None,
            }
        ],
    }


def test_what_comes_in_is_read_back_by_the_next_process(artifact, tmp_path):
    again = opened(tmp_path)
    assert again.all() == {artifact.digest: artifact}
    assert again.get(artifact.digest) == artifact
    assert again.find_accepted("m", 1) == (artifact, ACCEPTANCE)
    assert again.find_accepted("m", 2) is None
    assert again.use() == StoreUse(artifact.size_bytes, 0, 0)
    assert "accepted_for" not in artifact.description
    assert artifact.description["flavor"] == "sklearn"


def test_adding_twice_keeps_one_artifact_and_both_acceptances(store):
    first = add(store)
    of_another = Acceptance("other", 7, None, None, stamped=False)
    second = add(store, acceptance=of_another)
    assert second.accepted == (ACCEPTANCE, of_another)
    assert second.path == first.path
    assert len(store.all()) == 1


def test_acceptance_replaces_the_versions_former_one(artifact, store):
    newer = Acceptance("m", 1, "sha256:other", ACCEPTANCE.expected_digest, stamped=True)
    store.accept(artifact.digest, newer)
    assert store.get(artifact.digest).accepted == (newer,)
    with pytest.raises(StoreError):
        store.accept("sha256:" + "0" * 64, newer)


def test_find_accepted_returns_the_artifact_accepted_last(tmp_path):
    first = add(opened(tmp_path, at=5.0))
    later = add(opened(tmp_path, at=6.0), {"MLmodel": b"flavors: {}"})
    assert opened(tmp_path).find_accepted("m", 1) == (later, ACCEPTANCE)
    again = replace(ACCEPTANCE, accepted_at=7.0)
    opened(tmp_path).accept(first.digest, again)
    found = opened(tmp_path).find_accepted("m", 1)
    assert found is not None
    assert (found[0].digest, found[1]) == (first.digest, again)


def test_find_accepted_prefers_the_creation_under_any_name(store):
    of_it = replace(ACCEPTANCE, model="before", creation="c1", accepted_at=5.0)
    named = add(store, acceptance=of_it)
    later = add(store, {"MLmodel": b"flavors: {}"}, replace(ACCEPTANCE, accepted_at=6.0))
    assert store.find_accepted("m", 1, mark="c1") == (named, of_it)
    assert store.find_accepted("m", 1, mark="c2")[0].digest == later.digest
    assert store.find_accepted("m", 1)[0].digest == later.digest
    assert store.find_accepted("renamed", 9, mark="c1") == (named, of_it)


def test_removing_leaves_nothing(artifact, store, tmp_path):
    store.remove(artifact.digest)
    store.remove(artifact.digest)
    assert store.get(artifact.digest) is None
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_a_fetch_that_fails_leaves_nothing(store, tmp_path):
    def fail():
        with store.incoming() as path:
            fetched(path)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_what_is_booked_counts_until_it_is_stored_or_given_back(tmp_path):
    store = ArtifactStore(tmp_path, budget_bytes=2500)
    store.open()
    size = sum(map(len, FILES.values()))
    with store.incoming() as first, store.incoming() as second:
        assert store.book(first, 1500) == 0
        assert store.book(second, 1500) == 500
        assert store.use() == StoreUse(0, 1500, 2500)
        assert store.book(first, 3000) == 500  # more than there is: what was booked stays
        assert store.use().coming_bytes == 1500
        store.add(fetched(first), DESCRIPTION)
        assert store.use() == StoreUse(size, 0, 2500)
        assert store.book(second, 2500 - size) == 0
    assert store.use() == StoreUse(size, 0, 2500)
    assert opened(tmp_path).use() == StoreUse(size, 0, 0)


def test_what_was_booked_goes_back_though_its_folder_stays(tmp_path, monkeypatch):
    def refused(path: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    store = ArtifactStore(tmp_path, budget_bytes=100)
    store.open()
    with monkeypatch.context() as broken, store.incoming() as path:
        broken.setattr(artifact_store, "remove", refused)
        assert store.book(path, 90) == 0
    assert store.use() == StoreUse(0, 0, 100)
    with store.incoming() as path:
        assert store.book(path, 100) == 0
    store.open()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_what_was_booked_goes_back_where_the_artifact_is_there_already(artifact, store):
    with store.incoming() as path:
        store.book(path, 10)
        store.add(fetched(path), DESCRIPTION)
    assert store.use() == StoreUse(artifact.size_bytes, 0, 0)
    store.remove(artifact.digest)
    assert store.use() == StoreUse(0, 0, 0)


def test_each_file_and_folder_is_on_disk_before_the_artifact_has_its_name(
    store, tmp_path, monkeypatch
):
    """Its own first, then the folder's that has its name: a crash between finds no half."""
    synced: list[Path] = []
    original = os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        original(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    staged = fetched(tmp_path / "incoming" / "own")
    within = {staged.folder, *staged.folder.rglob("*")}
    artifact = store.add(staged, DESCRIPTION, ACCEPTANCE)
    assert within <= set(synced)
    assert synced.index(artifact.path.parent) > max(synced.index(path) for path in within)


def test_an_artifact_is_marked_as_removed_on_disk_before_a_part_of_it_goes(
    store, tmp_path, monkeypatch
):
    """A crash between leaves a mark, and no damaged artifact."""
    digest = add(store).digest
    done: list[str] = []

    def note(name, original):
        def noted(path):
            done.append(f"{name} {path.name}")
            original(path)

        monkeypatch.setattr(artifact_store, name, noted)

    note("sync_folder", sync_folder)
    note("remove", remove)
    store.remove(digest)
    own = digest.removeprefix("sha256:")
    gone = [f"remove {own}{end}" for end in (".manifest", "", ".json.removing")]
    assert done == ["sync_folder artifacts", *gone]


class Killed(BaseException):
    """The process ends here: no handler of the store may run on."""


STEPS = ["_seal", "sync_folder", "rename", "replace", "fsync", "unlink", "chmod"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", range(8))
@pytest.mark.parametrize("operation", ["add", "remove"])
def test_killed_at_any_step_the_artifact_is_whole_or_gone(
    tmp_path, monkeypatch, step, nth, operation
):
    store = opened(tmp_path)
    digest = add(store).digest if operation == "remove" else ""
    other = add(store, {"MLmodel": b"another"}, acceptance=None)
    owner = {"rename": Path, "replace": Path, "unlink": Path, "chmod": Path, "fsync": os}.get(
        step, artifact_store
    )
    original = getattr(owner, step)
    left = [nth]

    def die(*args, **options):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return original(*args, **options)

    staged = fetched(tmp_path / "incoming" / "own") if operation == "add" else None
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        try:
            if staged:
                store.add(staged, DESCRIPTION, ACCEPTANCE)
            else:
                store.remove(digest)
        except Killed:
            pass
    again = opened(tmp_path)
    whole = {a.digest: tree(a.path) for a in again.all().values()}
    assert whole.pop(other.digest) == {"MLmodel": b"another"}
    assert list(whole.values()) in ([], [FILES])
    kept = {digest.removeprefix("sha256:") for digest in again.all()}
    assert {p.name.partition(".")[0] for p in (tmp_path / "artifacts").iterdir()} == kept
    assert list((tmp_path / "incoming").iterdir()) == []
    if operation == "add":
        assert tree(add(again).path) == FILES


def rewrite(path: Path, change):
    """Write a record otherwise, as an older release did: without a checksum."""
    record = json.loads(path.read_bytes())
    record.pop("sha256", None)
    change(record)
    path.unlink()
    path.write_text(json.dumps(record))


def test_a_record_from_before_the_first_release_has_its_words(artifact, tmp_path):
    record = artifact.path.with_name(f"{artifact.path.name}.json")
    rewrite(record, lambda members: members.update(pinned_for=members.pop("accepted_for")))
    (tmp_path / "staging" / "left").mkdir(parents=True)
    assert opened(tmp_path).all() == {artifact.digest: artifact}
    assert not (tmp_path / "staging").exists()


def test_what_a_newer_release_wrote_is_refused_and_left_alone(artifact, tmp_path):
    record = artifact.path.with_name(f"{artifact.path.name}.json")
    body = json.loads(record.read_bytes()) | {"format_version": 2}
    del body["sha256"]
    record.unlink()
    record.write_bytes(seal(json.dumps(body, indent=1).encode()))
    with pytest.raises(StoreError, match="newer release"):
        opened(tmp_path)
    assert tree(artifact.path) == FILES


def test_a_manifest_that_was_altered_is_noticed(artifact, store):
    path = artifact.path.with_name(f"{artifact.path.name}.manifest")
    text = path.read_text().replace("model.bin", "model.bin2")
    path.unlink()
    path.write_text(text)
    with pytest.raises(StoreError, match="has the digest"):
        store.manifest(artifact.digest)
    with pytest.raises(StoreError):
        store.manifest("sha256:" + "0" * 64)


# --- damage ---------------------------------------------------------------------------------------

OTHER = {"MLmodel": b"another"}


def parts(artifact):
    """The record, the manifest and the folder of an artifact."""
    name = artifact.path.name
    return {
        "record": artifact.path.with_name(f"{name}.json"),
        "manifest": artifact.path.with_name(f"{name}.manifest"),
        "folder": artifact.path,
    }


def writable(folder):
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


RECORD_CHANGES = {
    "another artifact's": lambda record: record.update(digest="x"),
    "a size that is no number": lambda record: record.update(size_bytes="9"),
    "no acceptances": lambda record: record.pop("accepted_for"),
    "no time": lambda record: record.update(stored_at=None),
    "acceptances of strangers": lambda record: record["accepted_for"].append(3),
    "a newer format, unsealed": lambda record: record.update(format_version=99),
    "a stranger that is newer": lambda record: (record.clear(), record.update(format_version=99)),
    "requirements that are none": lambda record: record.update(requirements=5),
}
RECORD_DAMAGES = [
    *DAMAGES,
    *(Damage(name, partial(rewrite, change=change)) for name, change in RECORD_CHANGES.items()),
]


def lose_folder(path):
    writable(path)
    shutil.rmtree(path)


def link_folder(path):
    writable(path)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


PART_DAMAGES = [
    *(pytest.param("record", one, id=f"record {one}") for one in RECORD_DAMAGES),
    pytest.param("record", Damage("gone", lambda path: path.unlink()), id="record gone"),
    pytest.param("manifest", Damage("gone", lambda path: path.unlink()), id="manifest gone"),
    *(
        pytest.param("manifest", one, id=f"manifest {one}")
        for one in DAMAGES
        if one.name in {"endless", "a pipe", "a folder", "linked to a copy", "a socket"}
    ),
    pytest.param("folder", Damage("gone", lose_folder), id="folder gone"),
    pytest.param("folder", Damage("linked", link_folder), id="folder linked"),
    pytest.param(
        "folder", Damage("a file", lambda p: (lose_folder(p), p.write_text(""))), id="folder a file"
    ),
]


@pytest.mark.parametrize(("part", "damage"), PART_DAMAGES)
def test_what_is_damaged_concerns_that_artifact_only(store, tmp_path, part, damage):
    bad, good = add(store), add(store, OTHER)
    damage.apply(parts(bad)[part])
    again = opened(tmp_path)
    assert again.all() == {good.digest: good}
    assert (again.get(bad.digest), again.find_accepted("m", 1)) == (None, (good, ACCEPTANCE))
    (reason,) = again.damaged().values()
    assert again.damaged().keys() == {bad.digest}
    assert f"its {part}" in reason
    there = bad.size_bytes if part != "folder" else 0
    assert again.use().stored_bytes == good.size_bytes + there, "what is damaged takes room too"
    assert tree(good.path) == OTHER
    lost = {part} if damage.name == "gone" else set()
    left = {name for name, path in parts(bad).items() if os.path.lexists(path)}
    assert left == {"record", "manifest", "folder"} - lost, "a start removes nothing of it"


@pytest.mark.parametrize(("part", "damage"), PART_DAMAGES)
def test_what_is_damaged_is_set_aside_when_it_comes_again(store, tmp_path, part, damage):
    bad = add(store)
    damage.apply(parts(bad)[part])
    damaged_files = DamagedFiles()
    again = opened(tmp_path, damaged_files=damaged_files)
    artifact = add(again)
    assert (artifact.digest, again.damaged()) == (bad.digest, {})
    assert tree(artifact.path) == FILES
    assert again.manifest(artifact.digest).digest == artifact.digest
    (told,) = damaged_files.all()
    assert "is fetched again" in told.instead
    assert opened(tmp_path).all() == {artifact.digest: artifact}
    if (part, damage.name) == ("record", "gone"):
        assert told.set_aside is None
        return
    assert told.set_aside == f"{artifact.path.name}.json.damaged-1"
    assert os.path.lexists(tmp_path / "artifacts" / told.set_aside)


@pytest.mark.parametrize("how", ["drop", "remove"])
@pytest.mark.parametrize(("part", "damage"), PART_DAMAGES)
def test_what_is_damaged_can_be_removed(store, tmp_path, part, damage, how):
    bad = add(store)
    damage.apply(parts(bad)[part])
    again = opened(tmp_path)
    getattr(again, how)(bad.digest)
    assert (again.damaged(), again.all()) == ({}, {})
    assert again.use().stored_bytes == 0
    left = {one.name for one in (tmp_path / "artifacts").iterdir()} - {"elsewhere"}
    left = {name for name in left if not name.endswith(".elsewhere")}
    kept = how == "drop" and (part, damage.name) != ("record", "gone")
    assert left == ({f"{bad.path.name}.json.damaged-1"} if kept else set())


@pytest.mark.parametrize("how", ["add", "drop", "drop_damaged"])
@pytest.mark.parametrize(("part", "lose"), [("manifest", Path.unlink), ("folder", lose_folder)])
def test_replaced_copy_keeps_the_acceptances_of_the_lost_one(tmp_path, part, lose, how):
    store = opened(tmp_path, at=5.0)
    others = [
        Acceptance("other", 7, None, None, stamped=False),
        replace(ACCEPTANCE, version=2, accepted_at=6.0),
    ]
    artifact = add(store)
    for acceptance in others:
        store.accept(artifact.digest, acceptance)
    lose(parts(artifact)[part])
    again = opened(tmp_path, at=9.0)
    if how != "add":
        getattr(again, how)(artifact.digest)
    found = add(again).accepted
    assert set(found) == {replace(others[0], accepted_at=5.0), others[1], ACCEPTANCE}
    again.remove(artifact.digest)
    assert add(again).accepted == (ACCEPTANCE,), "what was removed on purpose is not remembered"


def test_copy_replaced_for_wrong_bytes_keeps_its_acceptances(store):
    other = Acceptance("other", 7, None, None, stamped=False, accepted_at=5.0)
    artifact = add(store)
    store.accept(artifact.digest, other)
    store.drop(artifact.digest)
    assert set(add(store).accepted) == {ACCEPTANCE, other}


def test_a_removal_that_the_disk_refused_is_ended_by_the_next_start(store, tmp_path, monkeypatch):
    artifact = add(store)

    def refuse(path):
        if path == artifact.path:
            raise OSError(errno.EIO, "Input/output error")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(artifact_store, "remove", refuse)
        with pytest.raises(StoreError):
            store.remove(artifact.digest)
    assert (store.get(artifact.digest), store.damaged()) == (None, {})
    assert (opened(tmp_path).all(), opened(tmp_path).damaged()) == ({}, {})
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_an_artifact_goes_though_the_damaged_record_of_an_earlier_removal_is_there(store, tmp_path):
    """A record that had become a folder, and that the disk kept, is in the place of the mark."""
    artifact = add(store)
    (tmp_path / "artifacts" / f"{artifact.digest.removeprefix('sha256:')}.json.removing").mkdir()
    store.remove(artifact.digest)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_records_that_are_set_aside_do_not_pile_up(store, tmp_path):
    for number in range(20):
        artifact = add(store, {"MLmodel": str(number).encode()})
        parts(artifact)["record"].unlink()
        parts(artifact)["record"].write_text("")
        store.drop(artifact.digest)
    assert len(list((tmp_path / "artifacts").iterdir())) == 8


def refusing(monkeypatch, number, *paths):
    """Let the system refuse to open, to list or to look at some paths."""
    refused = {os.fspath(path) for path in paths}
    for call in ("open", "stat", "lstat", "scandir", "listdir"):
        original = getattr(os, call)

        def refuse(path, *args, original=original, **options):
            if isinstance(path, str | os.PathLike) and os.fspath(path) in refused:
                raise OSError(number, os.strerror(number))
            return original(path, *args, **options)

        monkeypatch.setattr(os, call, refuse)


@pytest.mark.parametrize("part", ["record", "manifest", "folder"])
def test_a_part_that_cannot_be_read_for_a_moment_costs_nothing(store, tmp_path, monkeypatch, part):
    artifact, other = add(store), add(store, OTHER)
    with monkeypatch.context() as patch:
        refusing(patch, errno.EIO, parts(artifact)[part])
        again = opened(tmp_path)
        assert again.all() == {other.digest: other}
        assert again.damaged() == {
            artifact.digest: f"its {part} cannot be read: Input/output error"
        }
    assert again.all() == {artifact.digest: artifact, other.digest: other}
    assert again.damaged() == {}


@pytest.mark.parametrize("part", ["record", "manifest", "folder"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_what_this_process_lacks_is_no_damage(artifact, store, tmp_path, monkeypatch, part, number):
    with monkeypatch.context() as patch:
        refusing(patch, number, parts(artifact)[part])
        for look in (store.get, store.drop_damaged, store.drop):
            with pytest.raises(StoreError, match=os.strerror(number)):
                look(artifact.digest)
    assert store.damaged() == {}
    assert opened(tmp_path).all() == {artifact.digest: artifact}


def test_a_folder_that_cannot_be_listed_leaves_what_is_damaged_as_it_is(
    artifact, store, tmp_path, monkeypatch
):
    parts(artifact)["manifest"].unlink()
    before = sorted((tmp_path / "artifacts").iterdir())
    with monkeypatch.context() as patch:
        refusing(patch, errno.EMFILE, tmp_path / "artifacts")
        with pytest.raises(StoreError, match="Too many open files"):
            store.drop(artifact.digest)
    assert sorted((tmp_path / "artifacts").iterdir()) == before
    assert store.damaged() == {artifact.digest: "its manifest is gone"}


@pytest.mark.parametrize("name", ["artifacts", "incoming"])
def test_a_file_in_a_folders_place_is_set_aside(tmp_path, name):
    (tmp_path / name).write_text("in the way")
    assert add(opened(tmp_path)).digest
    assert (tmp_path / f"{name}.damaged-1").read_text() == "in the way"


def test_a_disk_that_takes_nothing_keeps_no_store_from_being_opened(store, tmp_path, monkeypatch):
    artifact = add(store)
    (tmp_path / "incoming" / "left").mkdir()
    (tmp_path / "artifacts" / "left").mkdir()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for call in ("mkdir", "unlink", "rmdir", "rename", "replace", "chmod"):
        monkeypatch.setattr(os, call, refuse)
    assert opened(tmp_path).all() == {artifact.digest: artifact}


def test_bytes_are_compared_with_their_manifest(artifact, store, tmp_path):
    assert store.compare(artifact.digest, lambda: None) is None
    writable(artifact.path)
    model = artifact.path / "data" / "model.bin"
    model.chmod(0o644)
    model.write_bytes(b"n" + model.read_bytes()[1:])
    assert store.compare(artifact.digest, lambda: None) == "its file 'data/model.bin' was altered"
    model.unlink()
    assert store.compare(artifact.digest, lambda: None) == "its file 'data/model.bin' is gone"
    model.symlink_to("deep")
    assert store.compare(artifact.digest, lambda: None) == "its file 'data/model.bin' was altered"
    (artifact.path / "more").touch()
    assert store.compare(artifact.digest, lambda: None) == "its file 'more' is not in its manifest"
    parts(artifact)["manifest"].unlink()
    assert store.compare(artifact.digest, lambda: None) == "its manifest is gone"
    assert store.compare("sha256:" + "0" * 64, lambda: None) == "it is gone"


def test_what_has_come_again_meanwhile_is_not_dropped_as_damaged(artifact, store, tmp_path):
    assert store.drop_damaged(artifact.digest) == artifact
    assert tree(artifact.path) == FILES
    parts(artifact)["manifest"].unlink()
    assert store.drop_damaged(artifact.digest) is None
    assert store.all() == {}
