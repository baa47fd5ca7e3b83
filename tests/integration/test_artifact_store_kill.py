"""The artifact store, its process killed for real in the middle of its work."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from registry_sync.artifacts.store import ArtifactStore

pytestmark = pytest.mark.integration

KILLS = 5
WRITER = """
import hashlib, sys
from pathlib import Path
from registry_sync.artifacts.store import ArtifactStore, Acceptance
from registry_sync.artifacts.manifest import FetchedArtifact, Manifest

store = ArtifactStore(Path(sys.argv[1]))
store.open()
print("open", flush=True)
for number in range(1_000_000):
    content = {f"part-{part}": f"{number} {part}".encode() * 1000 for part in range(5)}
    files = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    with store.incoming() as path:
        path.mkdir()
        for name, data in content.items():
            (path / name).write_bytes(data)
        size = sum(map(len, content.values()))
        fetched = FetchedArtifact(path, Manifest.of(files), size, None)
        acceptance = Acceptance("m", number + 1, None, None, stamped=False)
        digest = store.add(fetched, {}, acceptance).digest
    print(digest, flush=True)
    if number % 3 == 2:
        store.remove(digest)
"""


FILES = 30
REMOVER = """
import hashlib, os, signal, sys
from pathlib import Path
from registry_sync.artifacts.store import ArtifactStore
from registry_sync.artifacts.manifest import FetchedArtifact, Manifest

folder, files_each, dies_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = ArtifactStore(folder)
store.open()
for number in range(2):
    content = {f"{part % 5}/part-{part}": f"{number} {part}".encode() for part in range(files_each)}
    files = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    with store.incoming() as path:
        for name, data in content.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        size = sum(map(len, content.values()))
        digest = store.add(FetchedArtifact(path, Manifest.of(files), size, None), {}).digest
removals = 0

def die(event, _arguments):
    global removals
    if event in ("os.remove", "os.rmdir", "os.rename"):
        removals += 1
        if removals == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
store.remove(digest)
"""


@pytest.mark.parametrize(("dies_at", "files_left"), [(1, 60), (2, 60), (20, 45)])
def test_killed_while_it_removes_it_has_the_artifact_whole_or_not_at_all(
    tmp_path: Path, dies_at: int, files_left: int
) -> None:
    """First the record is renamed, then the manifest goes, then the files, and the record."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", REMOVER, str(tmp_path), str(FILES), str(dies_at)]
    assert subprocess.run(command, cwd=root, check=False).returncode == -signal.SIGKILL
    left = len(list((tmp_path / "artifacts").glob("*/*/part-*")))
    assert abs(left - files_left) <= 3, "folders are removed among the files, in any order"
    store = ArtifactStore(tmp_path)
    store.open()
    artifacts = store.all()
    assert len(artifacts) == (2 if dies_at == 1 else 1)
    for digest, artifact in artifacts.items():
        found = {
            str(path.relative_to(artifact.path)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in artifact.path.rglob("part-*")
        }
        assert found == store.manifest(digest).files
    assert store.use().stored_bytes == sum(one.size_bytes for one in artifacts.values())
    entries = {path.name.partition(".")[0] for path in (tmp_path / "artifacts").iterdir()}
    assert entries == {digest.removeprefix("sha256:") for digest in artifacts}


def test_killed_at_any_moment_the_store_is_whole(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "node")]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(2 + kill)]
            writer.kill()
        assert all(said)
        store = ArtifactStore(tmp_path / "node")
        store.open()
        artifacts = store.all()
        for digest, artifact in artifacts.items():
            found = {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in artifact.path.iterdir()
            }
            assert found == store.manifest(digest).files
        entries = {p.name.partition(".")[0] for p in (tmp_path / "node" / "artifacts").iterdir()}
        assert entries == {digest.removeprefix("sha256:") for digest in artifacts}
        assert not list((tmp_path / "node" / "incoming").iterdir())
