"""A small artifact for unit tests: the least that counts as a model."""

import hashlib
from pathlib import Path

from registry_sync.artifacts.manifest import FetchedArtifact, Manifest

MLMODEL = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    data: data\n"
FILES = {"MLmodel": MLMODEL.encode(), "data/model.bin": b"m" * 1000, "data/deep/er": b""}


def write_files(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    """Write ``files`` (default: `FILES`) below ``folder``."""
    for path, content in (FILES if files is None else files).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def fetched(folder: Path, files: dict[str, bytes] | None = None) -> FetchedArtifact:
    """Write files as a fetch would, and say what they are."""
    files = FILES if files is None else files
    write_files(folder, files)
    manifest = Manifest.of({p: hashlib.sha256(c).hexdigest() for p, c in files.items()})
    return FetchedArtifact(folder, manifest, sum(map(len, files.values())), "sha256:" + "0" * 64)
