"""Publishing a folder: what is refused, what is never overwritten, and what others may do."""

import json
import threading

import pytest
from typer.testing import CliRunner

from registry_sync import bootstrap
from registry_sync.cli import app
from registry_sync.errors import (
    ArtifactTooLargeError,
    IncompleteArtifactError,
    PublishError,
    SourceError,
    UnsafePathError,
)
from registry_sync.sources.s3_layout import ModelLocation, Root
from registry_sync.sources.s3_publisher import Publisher, read_folder
from registry_sync.sources.s3_registry import S3Registry
from tests.fakes.artifacts import FILES, write_files
from tests.fakes.s3 import FakeS3, refusal

PLACE = ModelLocation(Root("bucket", "reg/"), "a model")
FOLDER = "reg/a model/"


@pytest.fixture
def s3():
    return FakeS3()


@pytest.fixture
def folder(tmp_path):
    return write_files(tmp_path / "model")


def hashed(path, **limits):
    seen = []
    bounds = {"max_files": 100, "max_bytes": 2**20} | limits
    read = read_folder(path, **bounds, on_bytes=lambda *progress: seen.append(progress))
    assert seen[-1] == ("hash", read.size_bytes, read.size_bytes)
    return read


def publish(s3, path, version=None, aliases=(), on_bytes=lambda *_: None):
    publisher = Publisher(s3, PLACE, sleep=lambda _s: None)
    return publisher.publish(hashed(path), version, aliases, on_bytes)


def listed(s3):
    return S3Registry(lambda: s3, PLACE.root).aspired().models.get(PLACE.model)


def before(s3, call, act, end=""):
    """Do something before each call of a name about a key with this end."""

    def meanwhile(name, key):
        if name == call and key.endswith(end):
            act(key)

    s3.before = meanwhile


def test_a_published_folder_is_listed_with_its_digest_and_aliases(s3, folder):
    seen = []
    done = publish(s3, folder, aliases=["champion"], on_bytes=lambda *each: seen.append(each))
    found = listed(s3)
    assert (done.version, done.uploaded, done.guarded) == (1, True, True)
    assert found.versions[1].expected_digest == done.manifest.digest
    assert found.aliases == {"champion": 1}
    assert {key: s3.objects[f"{FOLDER}1/{key}"].content for key in FILES} == FILES
    total = sum(map(len, FILES.values()))
    assert seen[-1] == ("upload", total, total)


def test_the_manifest_is_written_after_the_files_and_before_the_aliases(s3, folder):
    publish(s3, folder, aliases=["champion"])
    written = [key for name, key in s3.asked if name in ("put_object", "upload_file")]
    assert written[-2:] == [f"{FOLDER}1.manifest", f"{FOLDER}aliases.json"]
    assert set(written[:-2]) == {f"{FOLDER}1/{path}" for path in FILES}


def test_second_publication_is_the_next_version_and_moves_its_aliases(s3, folder):
    publish(s3, folder, aliases=["champion", "stable"])
    (folder / "more").write_bytes(b"more")
    assert publish(s3, folder, aliases=["champion"]).version == 2
    assert listed(s3).aliases == {"champion": 2, "stable": 1}


def test_what_a_publication_left_unfinished_is_left_alone(s3, folder):
    s3.put(f"{FOLDER}1/MLmodel", b"half of it")
    assert publish(s3, folder).version == 2
    assert s3.objects[f"{FOLDER}1/MLmodel"].content == b"half of it"
    with pytest.raises(PublishError, match="an unfinished upload is at s3://bucket/reg/a model/1"):
        publish(s3, folder, version=1)


def test_a_published_version_is_never_overwritten(s3, folder):
    publish(s3, folder, version=7)
    stored = dict(s3.objects)
    (folder / "more").write_bytes(b"more")
    with pytest.raises(PublishError, match=r"version 7 .* with other bytes"):
        publish(s3, folder, version=7)
    assert s3.objects == stored


def test_the_same_bytes_again_are_no_error_and_move_the_aliases(s3, folder):
    publish(s3, folder)
    stored = dict(s3.objects)
    done = publish(s3, folder, version=1, aliases=["champion"])
    assert (done.version, done.uploaded) == (1, False)
    assert listed(s3).aliases["champion"] == 1
    del s3.objects[f"{FOLDER}aliases.json"]
    assert s3.objects == stored


# --- what is refused ------------------------------------------------------------------------------


def test_links_unsafe_paths_and_what_is_no_model_are_refused(folder, tmp_path):
    with pytest.raises(IncompleteArtifactError, match="MLmodel"):
        hashed(write_files(tmp_path / "other", {"model.pkl": b"x"}))
    with pytest.raises(SourceError, match="could not be listed"):
        hashed(tmp_path / "nowhere")
    for name, bad in (("link", lambda path: path.symlink_to("MLmodel")), ("MLMODEL", None)):
        path = folder / name
        bad(path) if bad else path.write_bytes(b"x")
        with pytest.raises(UnsafePathError):
            hashed(folder)
        path.unlink()
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UnsafePathError, match="'out' is a link"):
        hashed(folder)


@pytest.mark.parametrize("limits", [{"max_files": 1}, {"max_bytes": 10}])
def test_what_no_node_would_take_is_refused(folder, limits):
    with pytest.raises(ArtifactTooLargeError):
        hashed(folder, **limits)


def test_what_mlflow_adds_is_not_published(s3, folder):
    (folder / "registered_model_meta").write_text("model_name: x\n")
    done = publish(s3, folder)
    assert set(done.manifest.files) == set(FILES)
    assert f"{FOLDER}1/registered_model_meta" not in s3.objects


@pytest.mark.parametrize("what", ["added", "data/model.bin"])
def test_a_folder_that_changes_while_it_is_uploaded_is_not_published(s3, folder, what):
    before(s3, "upload_file", lambda _: (folder / what).write_bytes(b"something else"))
    with pytest.raises(PublishError, match="changed while it was uploaded"):
        publish(s3, folder)
    assert listed(s3) is None


def test_aliases_that_cannot_be_read_are_found_before_anything_is_uploaded(s3, folder):
    s3.put(f"{FOLDER}aliases.json", b"{")
    with pytest.raises(PublishError, match=r"aliases\.json cannot be read, and is left as it is"):
        publish(s3, folder, aliases=["champion"])
    assert list(s3.objects) == [f"{FOLDER}aliases.json"]


def test_a_storage_that_fails_halfway_publishes_nothing(s3, folder):
    def full(_key):
        raise refusal("InternalError")

    before(s3, "upload_file", full)
    with pytest.raises(SourceError, match="InternalError"):
        publish(s3, folder)
    assert listed(s3) is None
    s3.before = lambda *_: None
    assert publish(s3, folder).version == 2


# --- others at the same time ----------------------------------------------------------------------


def test_publications_at_the_same_time_get_numbers_and_bytes_of_their_own(s3, tmp_path):
    count = 5
    folders = [
        write_files(tmp_path / str(n), FILES | {"which": str(n).encode()}) for n in range(count)
    ]
    together = threading.Barrier(count)
    done = {}

    def one(number):
        together.wait(10)
        done[number] = publish(s3, folders[number], aliases=[f"of-{number}"])

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {each.version for each in done.values()} == set(range(1, count + 1))
    found = listed(s3)
    for number, each in done.items():
        assert s3.objects[f"{FOLDER}{each.version}/which"].content == str(number).encode()
        assert found.aliases[f"of-{number}"] == each.version


def test_aliases_written_by_others_meanwhile_are_kept(s3, folder):
    others = iter(range(3))

    def meanwhile(key):
        if (number := next(others, None)) is not None:
            said = json.loads(s3.objects[key].content) if key in s3.objects else {}
            s3.put(key, json.dumps(said | {f"other-{number}": 1}).encode())

    before(s3, "put_object", meanwhile, "aliases.json")
    publish(s3, folder, aliases=["champion"])
    names = {"other-0", "other-1", "other-2", "champion"}
    assert set(listed(s3).aliases) == names


def test_publication_fails_if_others_keep_writing_the_aliases(s3, folder):
    def always(key):
        s3.put(key, json.dumps({"other": len(s3.asked)}).encode())

    before(s3, "put_object", always, "aliases.json")
    with pytest.raises(PublishError, match="the version is published, but"):
        publish(s3, folder, aliases=["champion"])
    assert set(listed(s3).versions) == {1}


def test_a_number_that_somebody_takes_meanwhile_is_theirs(s3, folder):
    before(s3, "put_object", lambda key: s3.put(key, b"theirs"), f"{FOLDER}1/MLmodel")
    with pytest.raises(PublishError, match="another publication of"):
        publish(s3, folder, version=1)
    assert publish(s3, folder).version == 2
    assert s3.objects[f"{FOLDER}1/MLmodel"].content == b"theirs"


def test_a_manifest_whose_answer_was_lost_is_ours(s3, folder):
    manifest = hashed(folder).manifest.text().encode()

    before(s3, "put_object", lambda key: s3.put(key, manifest), ".manifest")
    assert publish(s3, folder).version == 1


def test_files_that_somebody_else_puts_beside_ours_are_noticed(s3, folder):
    before(s3, "upload_file", lambda _: s3.put(f"{FOLDER}1/theirs", b"x"))
    with pytest.raises(PublishError, match="another writer uses"):
        publish(s3, folder)
    assert listed(s3) is None


@pytest.mark.parametrize("conditions", ["ignored", "unknown"])
def test_a_storage_without_conditions_is_published_to_and_it_is_said(folder, conditions):
    s3 = FakeS3(conditions=conditions)
    done = publish(s3, folder, aliases=["champion"])
    assert (done.version, done.guarded) == (1, False)
    assert publish(s3, folder, aliases=["champion"]).version == 2
    assert listed(s3).aliases == {"champion": 2}


@pytest.mark.parametrize("conditions", ["kept", "ignored", "unknown"])
def test_a_number_that_is_published_meanwhile_is_not_overwritten(folder, conditions):
    s3 = FakeS3(conditions=conditions)
    before(s3, "upload_file", lambda _: s3.put(f"{FOLDER}1.manifest", b"theirs"))
    with pytest.raises(PublishError, match="with other bytes"):
        publish(s3, folder)
    assert s3.objects[f"{FOLDER}1.manifest"].content == b"theirs"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def run(s3, monkeypatch):
    def build(uri):
        return Publisher(s3, ModelLocation.at(uri))

    monkeypatch.setattr(bootstrap, "build_publisher", build)
    return lambda *arguments: CliRunner().invoke(app.app, ["publish", *map(str, arguments)])


def test_the_command_says_what_it_did(s3, run, folder):
    answer = run(folder, "s3://bucket/reg/a model", "--alias", "@champion", "--json")
    assert answer.exit_code == 0, answer.output
    body = json.loads(answer.stdout)
    assert body | {"digest": "", "size_bytes": 0} == {
        "model": "a model",
        "version": 1,
        "digest": "",
        "location": "s3://bucket/reg/a model/1",
        "files": len(FILES),
        "size_bytes": 0,
        "uploaded": True,
        "aliases": ["champion"],
        "guarded": True,
    }
    assert body["digest"] == listed(s3).versions[1].expected_digest
    answer = run(folder, "s3://bucket/reg/a model", "--version", "1")
    assert "version 1 was published before with the same bytes" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["s3://bucket/reg/m", "--alias", "latest"], 2),
        (["s3://bucket/reg/m", "--alias", "3"], 2),
        (["s3://bucket"], 2),
        (["https://bucket/m"], 2),
        (["s3://bucket/reg/.."], 2),
        (["s3://bucket/reg/m", "--version", "0"], 2),
    ],
)
def test_wrong_usage_is_told_apart(run, s3, folder, arguments, status):
    answer = run(folder, *arguments)
    assert answer.exit_code == status, answer.output
    assert s3.objects == {}


def test_a_refusal_is_one_sentence(run, folder):
    (folder / "link").symlink_to("MLmodel")
    answer = run(folder, "s3://bucket/reg/m")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "'link' is a link" in answer.stderr
