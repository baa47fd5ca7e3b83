"""Which tests run which function without any sabotage, and how long they take.

A file of tests is run again only if it, or anything but other files of tests, has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutants.operators import Mutant
from tests.mutants.plugin import SEEN
from tests.mutants.spines import Spine
from tests.mutants.workshop import ROOT, Workshop, module_file

KEPT = ROOT / ".mutants" / "baseline.json"
MOST_S = 30.0
"""How long the tests of one mutant take at most, without it: what they miss is found too late."""


class Baseline:
    """All tests that watch the spines."""

    def __init__(self, files: dict[str, Any]) -> None:
        self._tests = {name: test for file in files.values() for name, test in file.items()}

    def watchers(self, mutant: Mutant, spine: Spine) -> list[dict[str, float]]:
        """Return the tests that ought to kill a mutant, with their times, in three groups.

        First the unit tests of its module, then others that run its function, then those of which
        is not known what they run. A function that runs as its module is imported is run by none:
        all unit tests of its module watch it.
        """
        file = module_file(mutant.module)
        function = f"{file}:{mutant.function}"
        unit = Path("tests/unit", file)
        mirror = (f"{unit.with_name(f'test_{unit.name}')}::", f"{unit.with_suffix('')}/")
        groups: list[dict[str, float]] = [{}, {}, {}]
        left_s = MOST_S
        is_run = any(function in one.get("functions", ()) for one in self._tests.values())
        for name, test in sorted(self._tests.items(), key=lambda one: one[1]["seconds"]):
            is_seen = name.startswith(SEEN)
            runs = not is_seen or function in test["functions"]
            runs = runs or (not is_run and name.startswith(mirror))
            if runs and name.startswith(spine.watched_by) and test["seconds"] <= left_s:
                left_s -= test["seconds"]
                groups[not name.startswith(mirror) if is_seen else 2][name] = test["seconds"]
        return groups


def baseline(files: list[str], workshops: list[Workshop]) -> Baseline:
    """Return what the tests of some files run; only what has changed is run."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    keys = _keys(files)
    missing = [file for file in files if kept.get(file, {}).get("key") != keys[file]]
    shares = [missing[number :: len(workshops)] for number in range(len(workshops))]
    with ThreadPoolExecutor(len(workshops)) as threads:
        for share, tests in zip(shares, threads.map(_noted, workshops, shares), strict=True):
            for file in share:
                own = {name: one for name, one in tests.items() if name.startswith(f"{file}::")}
                kept[file] = {"key": keys[file], "tests": own}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept))
    return Baseline({file: kept[file]["tests"] for file in files})


def _noted(workshop: Workshop, files: list[str]) -> dict[str, dict[str, object]]:
    return workshop.note(files) if files else {}


def _keys(files: list[str]) -> dict[str, str]:
    """Return a digest for each file of tests: of itself and of all that is no file of tests."""
    rest = hashlib.sha256()
    for folder in ("gateway", "registry_sync", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.name.startswith("test_") and "mutants" not in path.parts:
                rest.update(path.read_bytes())
    return {
        file: hashlib.sha256(rest.digest() + (ROOT / file).read_bytes()).hexdigest()
        for file in files
    }


def test_files(folders_and_files: Iterable[str]) -> list[str]:
    """Return the files of tests in folders, relative to the root."""
    found: dict[str, None] = {}
    for name in folders_and_files:
        path = ROOT / name
        paths: Iterable[Path] = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
        found.update(dict.fromkeys(str(one.relative_to(ROOT)) for one in paths))
    return list(found)
