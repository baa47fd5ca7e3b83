"""One run of the demonstration: start everything, play every step, end everything."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.demo.errors import DemoError, EndedBySignalError
from deploy.demo.models import CHURN
from deploy.demo.opening import START_LIMIT_S, Opening, own_folder
from deploy.demo.probes import answers_ok
from deploy.demo.screen import Screen
from deploy.demo.servers import Servers
from deploy.demo.story import SABOTAGES, STEPS, Scene, Step, shorten

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def list_sabotages() -> None:
    """Print which steps ``DEMO_SABOTAGE`` can break, and how."""
    for name, what in SABOTAGES.items():
        print(f"{name:<10} {what}")


def run(*, state: Path, once: bool, sabotage: str | None) -> int:
    """Play the story; return the exit status. Main thread only, once in a process.

    Args:
        state: The folder for all files of the demonstration; emptied first.
        once: End after the last step instead of staying up.
        sabotage: The step to break, of `SABOTAGES`.
    """
    show = Show(Screen(Console(highlight=False)), Servers())
    for number in _SIGNALS:
        signal.signal(number, _end)
    try:
        with own_folder(state):
            return _guarded(show, state, once=once, sabotage=sabotage)
    except DemoError as error:
        show.screen.failed(str(error))
        return 1


def _guarded(show: Show, state: Path, *, once: bool, sabotage: str | None) -> int:
    """Play, and end every process at the end, also after an error or a signal."""
    try:
        show.play(Opening(show.screen, show.servers, state, sabotage), once=once)
    except EndedBySignalError as ended:
        return 0 if show.held and ended.number == signal.SIGINT else 128 + ended.number
    finally:
        _ignore_signals()
        show.servers.stop_all()
        show.screen.say("All servers are stopped.")
    return 0


def _end(number: int, _frame: FrameType | None) -> None:
    _ignore_signals()  # the clean-up must not be interrupted by a second Ctrl-C
    raise EndedBySignalError(number)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@dataclass
class Show:
    """Plays the steps. ``held`` is whether every step held."""

    screen: Screen
    servers: Servers
    held: bool = False

    def play(self, opening: Opening, *, once: bool) -> None:
        """Start the servers, play the steps, then end or stay up.

        Raises:
            DemoError: A step failed; the message names it.
        """
        self.screen.title("registry-gateway: a registry served, promoted and hot-swapped")
        if opening.sabotage:
            what = SABOTAGES[opening.sabotage]
            self.screen.say(f"DEMO_SABOTAGE={opening.sabotage}: {what}")
        began = time.monotonic()
        try:
            scene = opening.prepare()
        except DemoError as error:
            self._show_logs()
            raise DemoError(f"FAILED to start: {error}") from error
        took = [["(start)", "", f"{time.monotonic() - began:.1f} s"]]
        for number, step in enumerate(STEPS, start=1):
            began = time.monotonic()
            self.screen.step(number, len(STEPS), step.name, step.title)
            self._one(step, scene)
            took.append([step.name, step.title, f"{time.monotonic() - began:.1f} s"])
        self.held = True
        self.screen.table("Every step held", ["step", "what", "time"], took)
        if not once:
            self._stay_up(scene)

    def _one(self, step: Step, scene: Scene) -> None:
        try:
            step.play(scene)
            with self.screen.waiting("checking it by requests of its own"):
                seen = step.check(scene)
                self.servers.check_running()
        except DemoError as error:
            self._show_logs()
            raise DemoError(f"FAILED step {step.name}: {error}") from error
        self.screen.say("")
        for line in seen:
            self.screen.held(line)

    def _show_logs(self) -> None:
        """Show the last lines of every log, so that the reason is on the screen."""
        for server in self.servers.started:
            self.screen.say(f"\nThe last lines of {shorten(server.log)}:")
            self.screen.output(server.tail())

    def _stay_up(self, scene: Scene) -> None:
        """Print the addresses, and stay until a signal comes.

        Raises:
            DemoError: A server ended.
        """
        with self.screen.waiting("starting MLflow again, so that you can go on by yourself"):
            self.servers.start(scene.mlflow)
            health = f"{scene.mlflow_url}/health"
            self.servers.wait_until("MLflow is up", lambda: answers_ok(health), START_LIMIT_S)
        gateway = scene.gateway_url
        self.screen.table(
            "Yours until Ctrl-C",
            ["what", "where"],
            [
                ["models", f"{gateway}/models"],
                ["one model", f"{gateway}/models/{CHURN}"],
                ["try it in the browser", f"{gateway}/docs"],
                ["metrics", f"{gateway}/metrics"],
                ["MLflow", scene.mlflow_url],
                ["logs", shorten(scene.gateway.log.parent)],
            ],
        )
        while True:
            self.servers.check_running()
            time.sleep(0.5)
