"""The artifact store, its process killed for real in the middle of its work."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from registry_sync.artifact_store import ArtifactStore

pytestmark = pytest.mark.integration

KILLS = 12
WRITER = """
import hashlib, sys
from pathlib import Path
from registry_sync.artifact_store import ArtifactStore, Pin
from registry_sync.manifest import Fetched, Manifest

store = ArtifactStore(Path(sys.argv[1]))
store.open()
print("open", flush=True)
for number in range(1_000_000):
    content = {f"part-{part}": f"{number} {part}".encode() * 1000 for part in range(5)}
    files = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    with store.staging() as path:
        path.mkdir()
        for name, data in content.items():
            (path / name).write_bytes(data)
        size = sum(map(len, content.values()))
        fetched = Fetched(path, Manifest.of(files), size, None)
        digest = store.add(fetched, {}, Pin("m", number + 1, None, None, stamped=False)).digest
    print(digest, flush=True)
    if number % 3 == 2:
        store.remove(digest)
"""


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
        assert not list((tmp_path / "node" / "staging").iterdir())
