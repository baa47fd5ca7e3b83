"""Copies of the working tree in which sabotaged code runs, and can harm nothing but the copy."""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.operators import Mutant
from tests.mutants.plugin import LEAST_LIMIT_S, SLOWER

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv", ".*_cache", ".mutants", ".hypothesis", ".demo")
ALL_PASSED, FAILED, INTERRUPTED, INTERNAL_ERROR = range(4)
_KILLED = {FAILED, INTERRUPTED, INTERNAL_ERROR}
"""What pytest answers where a test or an import fails; another answer means a wrong command."""
_START_S = 30.0
_FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class BrokenToolError(Exception):
    """Pytest ran no test, or could not be run at all."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        killer: What noticed it; None if it survived.
        tests: How many tests were to run.
    """

    killer: str | None
    tests: int
    seconds: float


class Workshop:
    """A copy of the tree, one mutant at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._temporary = folder / "tmp"
        self._order = folder / "order.json"
        shutil.copytree(ROOT, self.root, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))

        for package in ("gateway", "registry_sync", "tests"):
            compileall.compile_dir(self.root / package, quiet=2)

    def note(self, files: list[str]) -> dict[str, dict[str, object]]:
        """Return each test of some files with the functions it runs and its time.

        A test that fails without any sabotage can show nothing and is left out.
        """
        notes = self._order.with_name("notes.json")
        self._pytest(f"--note-functions={notes}", *files, limit_s=None)
        noted = json.loads(notes.read_text())
        for name in noted["failed"]:
            sys.stderr.write(f"left out, for it fails or is skipped without a sabotage: {name}\n")
        tests: dict[str, dict[str, object]] = noted["tests"]
        return tests

    def run(self, mutant: Mutant, groups: list[dict[str, float]]) -> Outcome:
        """Run groups of tests against a mutant, until the first test that fails.

        What fails without the sabotage, too, has noticed nothing: the others run again.
        """
        started, tests = time.monotonic(), sum(map(len, groups))
        while (killer := self._sabotaged(mutant, groups)) is not None:
            suspects = [_named_by(killer, one) for one in groups]
            if self._first_killer(suspects) is None:
                break
            groups = [
                {name: s for name, s in one.items() if name not in of}
                for one, of in zip(groups, suspects, strict=True)
            ]
        return Outcome(killer, tests, time.monotonic() - started)

    def _sabotaged(self, mutant: Mutant, groups: list[dict[str, float]]) -> str | None:
        """Return what notices a mutant, or None."""
        file = self.root / module_file(mutant.module)
        compiled = Path(importlib.util.cache_from_source(str(file)))
        compiled.unlink(missing_ok=True)
        file.write_bytes(mutant.applied)
        try:
            return self._first_killer(groups)
        finally:
            file.write_bytes(mutant.code)
            compiled.unlink(missing_ok=True)

    def _first_killer(self, groups: list[dict[str, float]]) -> str | None:
        return next(filter(None, (self._killer(one) for one in groups if one)), None)

    def _killer(self, seconds: dict[str, float]) -> str | None:
        self._order.write_text(json.dumps(seconds))
        files = dict.fromkeys(name.partition("::")[0] for name in seconds)
        limit_s = _START_S + LEAST_LIMIT_S + SLOWER * sum(seconds.values())
        try:
            done = self._pytest(f"--in-order={self._order}", "--exitfirst", *files, limit_s=limit_s)
        except subprocess.TimeoutExpired:
            return "the time limit"
        if done.returncode == ALL_PASSED:
            return None
        if done.returncode > 0 and done.returncode not in _KILLED:
            raise BrokenToolError(done.stdout + done.stderr)
        failed = _FAILED_TEST.search(done.stdout)
        return failed[1] if failed else f"exit status {done.returncode}"

    def _pytest(self, *arguments: str, limit_s: float | None) -> subprocess.CompletedProcess[str]:
        """Run pytest in process ids of its own: a sabotaged signal reaches nothing else."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
        return subprocess.run(
            # bash reaps what loses its parent, as the first process ought to.
            [
                *("unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("bash", "-c", '"$@"; exit $?', "bash"),
                *(sys.executable, "-m", "pytest", "-p", "tests.mutants.plugin"),
                *("-p", "no:cacheprovider", "-q", "-rfE", "--tb=no", "--hypothesis-seed=0"),
                *arguments,
            ],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPATH": str(self.root),
                "TMPDIR": str(self._temporary),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )


def _named_by(killer: str, tests: dict[str, float]) -> dict[str, float]:
    """Return the tests that a killer may be: a parametrized one, one of a file, or any."""
    named = {name: seconds for name, seconds in tests.items() if name.startswith(killer)}
    if "::" not in killer:
        named = dict([*named.items()][:1])  # the file was not imported
    return named if killer.startswith("tests/") else tests


def module_file(module: str) -> Path:
    """Return the file of a module, relative to the root."""
    return Path(*module.split(".")).with_suffix(".py")
