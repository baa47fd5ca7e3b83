"""The demonstration: it holds, it fails where it is broken on purpose, and it leaves nothing."""

import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from deploy.demo.story import SABOTAGES, STEPS
from tests.acceptance.node import HOOKS
from tests.acceptance.processes import MARK, Running, assert_nothing_left
from tests.acceptance.scale import SOAK, WITHOUT
from tests.acceptance.waiting import until
from tests.servers import clean_environ

ROOT = Path(__file__).parents[2]
DEMO_PATIENCE_S = 280.0
MODES: tuple[tuple[str, ...], ...] = (("--once",), ()) if SOAK else (("--once",),)
"""How it is started: to end by itself, and in full runs to stay up until Ctrl-C."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)

DemoStarter = Callable[..., Running]


@pytest.fixture
def demo(short_folder: Path, tmp_path: Path) -> Iterator[DemoStarter]:
    """Start the demonstration in a folder of its own; nothing of it may outlive the test."""
    mark = uuid.uuid4().hex
    started: list[Running] = []

    def start(*arguments: str, sabotage: str | None = None) -> Running:
        settings = {MARK: mark, "COLUMNS": "100", "PYTHONPATH": str(HOOKS)}
        settings["ACCEPTANCE_WITHOUT"] = WITHOUT
        if sabotage:
            settings["DEMO_SABOTAGE"] = sabotage
        state = short_folder / mark[:8]
        running = Running.start(
            "demo",
            [sys.executable, "-m", "deploy.demo", "--state", str(state), *arguments],
            environment=clean_environ(settings),
            cwd=ROOT,
            log=tmp_path / "demo.log",
        )
        started.append(running)
        return running

    yield start
    for running in started:
        if running.running:
            running.kill()
    assert_nothing_left(mark)


def _ends(demo: Running) -> str:
    """Wait until the demonstration has ended, and return what it wrote."""
    until(lambda: not demo.running, "the demonstration ends", patience_s=DEMO_PATIENCE_S)
    return demo.log.read_text()


@pytest.mark.parametrize("arguments", MODES)
def test_every_step_holds(demo: DemoStarter, arguments: tuple[str, ...]) -> None:
    running = demo(*arguments)
    if "--once" not in arguments:
        _is_stopped_when_it_stays_up(running)
    written = _ends(running)
    assert running.process.returncode == 0, running.tail()
    for step in STEPS:
        assert f"· {step.name} ·" in written
    assert "Every step held" in written
    assert "\x1b" not in written, "control sequences, and nobody has a terminal"
    assert max(map(len, _told(written))) <= 100


def _is_stopped_when_it_stays_up(demo: Running) -> None:
    """Wait until the addresses are printed, use one, and press Ctrl-C."""
    until(
        lambda: not demo.running or "logs " in demo.log.read_text().partition("Yours until")[2],
        "the demonstration stays up",
        patience_s=DEMO_PATIENCE_S,
    )
    demo.assert_running()
    addresses = re.findall(r"http://127.0.0.1:\d+\S*", demo.log.read_text().partition("Yours")[2])
    assert len(addresses) == 5
    for address in addresses:
        with urlopen(address, timeout=30) as answer:
            assert answer.status == 200
    os.kill(demo.pid, signal.SIGINT)


def _told(written: str) -> list[str]:
    """The headlines: what is for copying, or from somebody else, may be longer."""
    return [line for line in written.splitlines() if line.startswith("─")]


@pytest.mark.soak("unit/test_demo.py")
@pytest.mark.parametrize("step", SABOTAGES)
def test_a_step_broken_on_purpose_fails_by_its_name(demo: DemoStarter, step: str) -> None:
    running = demo("--once", sabotage=step)
    written = _ends(running)
    assert running.process.returncode == 1, running.tail()
    assert f"FAILED step {step}:" in written
    assert "Every step held" not in written
    names = [each.name for each in STEPS]
    for later in names[names.index(step) + 1 :]:
        assert f"· {later} ·" not in written


@pytest.mark.soak("acceptance/test_demo.py")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_demonstration_that_is_stopped_leaves_no_process(
    demo: DemoStarter, number: signal.Signals
) -> None:
    running = demo()
    until(
        lambda: not running.running or "a real MLflow server on" in running.log.read_text(),
        "the MLflow server is up",
    )
    running.assert_running()
    os.kill(running.pid, number)
    written = _ends(running)
    expected = -number if number is signal.SIGKILL else 128 + number
    assert running.process.returncode == expected
    assert ("All servers are stopped." in written) == (number is not signal.SIGKILL)
