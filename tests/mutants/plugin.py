"""A plugin of pytest: notes which functions each test runs, or runs listed tests in their order."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType

import pytest

SEEN = "tests/unit/"
"""Where tests are whose functions are noted: others start processes, or run for long."""
LEAST_LIMIT_S = 15.0
"""What each test may take, however short it usually is."""
SLOWER = 6
"""How many times as long as usual a test may take."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutants")
    group.addoption("--note-functions", metavar="FILE", help="Write what each test runs")
    group.addoption("--in-order", metavar="FILE", help="Run what FILE lists, in order")


def pytest_configure(config: pytest.Config) -> None:
    if notes := config.getoption("--note-functions"):
        config.pluginmanager.register(_Notes(config.rootpath, Path(notes)))
    if listed := config.getoption("--in-order"):
        seconds: dict[str, float] = json.loads(Path(listed).read_text())
        config.pluginmanager.register(_Order(seconds))


class _Order:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the listed tests, each with a limit of its own time."""
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self._seconds if name in found]
        for item in items:
            limit = LEAST_LIMIT_S + SLOWER * self._seconds[item.nodeid]
            item.add_marker(pytest.mark.timeout(limit), append=False)


class _Notes:
    def __init__(self, root: Path, file: Path) -> None:
        self._root = f"{root}/"
        self._file = file
        self._current: set[CodeType] = set()
        self._tests: dict[str, dict[str, object]] = {}
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note each function of ours that runs from a unit test's set-up to its tear-down."""
        self._current = set()
        if item.nodeid.startswith(SEEN):
            sys.settrace(self._note)
            threading.settrace(self._note)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self._tests.setdefault(item.nodeid, {})["functions"] = sorted(
                f"{code.co_filename.removeprefix(self._root)}:{code.co_qualname}"
                for code in self._current
                if code.co_filename.startswith(self._root)
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long a test took and whether it failed."""
        test = self._tests.setdefault(report.nodeid, {})
        test["seconds"] = round(float(str(test.get("seconds", 0))) + report.duration, 3)
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        kept = {name: test for name, test in self._tests.items() if name not in self._failed}
        self._file.write_text(json.dumps({"tests": kept, "failed": sorted(self._failed)}))

    def _note(self, frame: FrameType, event: str, arg: object) -> None:
        self._current.add(frame.f_code)
