"""The story: five steps, each played before the reader's eyes and then checked by its own probe."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.calls import Answer, Call
from deploy.demo.errors import DemoError
from deploy.demo.models import CHAMPION, CHURN, WINE, Trained, artifact_file
from deploy.demo.probes import Probes, answers_ok
from deploy.demo.screen import Screen
from deploy.demo.servers import Server, Servers
from deploy.demo.traffic import CLIENTS, Traffic, find_swap

SWAP_LIMIT_S = 120.0
REFUSAL_LIMIT_S = 120.0
ROLLBACK_LIMIT_S = 10.0
COLD_LIMIT_S = 120.0
TRAFFIC_LIMIT_S = 120.0
COMMAND_LIMIT_S = 120.0
AGAIN_S = 3.0
"""Seconds in which a condition must stay: several passes of the control plane."""

SABOTAGES: Mapping[str, str] = {
    "predict": "the gateway is killed before the first request",
    "promote": "the gateway is killed while the traffic runs",
    "tamper": "the bytes of version 3 are left as they are",
    "rollback": "the command is printed and not run",
    "outage": "the gateway is stopped together with MLflow",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """The servers, models and output of the steps.

    Attributes:
        artifacts: The folder in which the MLflow server keeps the artifacts.
        environ: The environment of our own commands; ``shown_environ`` is the part to print.
    """

    screen: Screen
    servers: Servers
    mlflow: Server
    gateway: Server
    mlflow_url: str
    gateway_url: str
    artifacts: Path
    environ: Mapping[str, str]
    shown_environ: Mapping[str, str]
    trained: Trained
    probes: Probes
    sabotage: str | None

    def ask(self, call: Call) -> Answer:
        """Print a request, send it, print the answer; ask again while the version loads.

        Raises:
            DemoError: The gateway did not answer.
        """
        self.screen.shell(call.command)
        deadline = time.monotonic() + COLD_LIMIT_S
        while True:
            answer = call.send()
            self.screen.answer(answer.status, answer.reason, answer.shown_headers, answer.body)
            if "Retry-After" not in answer.headers or time.monotonic() > deadline:
                return answer
            self.screen.say("  (this version is being loaded for the first time; asking again)")
            time.sleep(1.0)

    def predict(self, path: str, version: str | None = None, body: Any = None) -> Answer:
        """Ask for a prediction. ``version`` becomes the header ``X-Model-Version``.

        Raises:
            DemoError: The status is not 200.
        """
        headers = {} if version is None else {"X-Model-Version": version}
        body = {"features": self.trained.customer} if body is None else body
        answer = self.ask(Call(f"{self.gateway_url}{path}/predict", "POST", headers, body))
        if answer.status != 200:  # noqa: PLR2004 (HTTP's OK)
            raise DemoError(f"POST {path}/predict was answered with {answer.status}")
        return answer

    def promote(self, version: int) -> None:
        """Point ``churn@champion`` at a version, in MLflow, by MLflow's own REST call.

        Raises:
            DemoError: MLflow refused.
        """
        url = f"{self.mlflow_url}/api/2.0/mlflow/registered-models/alias"
        body = {"name": CHURN, "alias": CHAMPION, "version": str(version)}
        answer = self.ask(Call(url, "POST", {}, body))
        if answer.status != 200:  # noqa: PLR2004 (HTTP's OK)
            raise DemoError(f"MLflow did not move the alias: {answer.status}")

    def command(self, *arguments: str) -> None:
        """Print and run ``registry-gateway``.

        Raises:
            DemoError: It ended with another status than 0, or not within its time.
        """
        program = Path(sys.executable).with_name("registry-gateway")
        shown = [f"{name}={shlex.quote(value)}" for name, value in self.shown_environ.items()]
        self.screen.shell(" ".join([*shown, shorten(program), *map(shlex.quote, arguments)]))
        try:
            done = subprocess.run(
                [program, *arguments],
                check=False,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DemoError(f"registry-gateway {arguments[0]}: {error}") from error
        self.screen.output(done.stdout)
        if done.returncode != 0:
            raise DemoError(f"registry-gateway {arguments[0]} ended with {done.returncode}")

    def wait_until(self, what: str, is_so: Callable[[], bool], limit_s: float) -> None:
        """Wait until a condition holds, and show the wait.

        Raises:
            DemoError: It took too long, or a server ended.
        """
        with self.screen.waiting(f"waiting until {what}"):
            self.servers.wait_until(what, is_so, limit_s)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``play`` shows it, ``check`` checks it and returns its findings."""

    name: str
    title: str
    play: Callable[[Scene], None]
    check: Callable[[Scene], list[str]]


def shorten(path: Path) -> str:
    """Return a path as the reader would type it: relative if it is below this folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


# --- predict --------------------------------------------------------------------------------------


def _play_predict(scene: Scene) -> None:
    if scene.sabotage == "predict":
        scene.gateway.kill()
    scene.screen.say("One customer, one model. The path names a version by number:")
    scene.predict(f"/models/{CHURN}/versions/1")
    scene.screen.say("\nThe header names it (version 2 was never asked for: it is fetched now):")
    scene.predict(f"/models/{CHURN}", version="2")
    scene.screen.say("\nThe path names an alias, as it is set in MLflow:")
    scene.predict(f"/models/{CHURN}/versions/@{CHAMPION}")
    scene.screen.say(f"\nWithout a version, the alias {CHAMPION} is meant:")
    body = {"dataframe_split": scene.trained.wine}
    scene.predict(f"/models/{WINE}", body=body)


def _check_predict(scene: Scene) -> list[str]:
    probes = scene.probes
    for version in (1, 2):
        probes.answers(version, f"/versions/{version}")
        probes.answers(version, "", {"X-Model-Version": str(version)})
    seen = "versions 1 and 2, by path and by header: exactly what each predicts, for 20 customers"
    return [seen, probes.champion_is(1)]


# --- promote --------------------------------------------------------------------------------------


def _play_promote(scene: Scene) -> None:
    names = " · ".join(client.name for client in CLIENTS)
    scene.screen.say(f"{len(CLIENTS)} clients ask all the time: {names}")
    traffic = Traffic(scene.gateway_url, scene.trained)
    traffic.start()
    try:
        _swap_under(scene, traffic)
    finally:
        traffic.stop()


def _swap_under(scene: Scene, traffic: Traffic) -> None:
    """Move the alias while the traffic runs, and print the clients' view."""
    _more_answers(scene, traffic)
    asked_at = time.time()
    scene.promote(2)
    if scene.sabotage == "promote":
        scene.gateway.kill()
    scene.wait_until(
        "version 2 is loaded, warmed and active", lambda: _active(scene, 2), SWAP_LIMIT_S
    )
    shown_at = time.time()
    _more_answers(scene, traffic)
    traffic.stop()
    if traffic.faults:
        raise DemoError(f"the traffic did not go through: {'; '.join(traffic.faults[:3])}")
    records = traffic.records
    swap = find_swap(records, old=1, new=2, shown_at=shown_at)
    if swap is None:
        raise DemoError("the callers by alias did not see both versions")
    rows = []
    for client in CLIENTS:
        own = [record for record in records if record.client is client]
        before = sorted({str(r.version) for r in own if r.done_at < swap.first_new})
        after = sorted({str(r.version) for r in own if r.sent_at > swap.last_old})
        slowest = max(record.done_at - record.sent_at for record in own) * 1000
        cells = [client.name, str(len(own)), "0", ", ".join(before), ", ".join(after)]
        rows.append([*cells, f"{slowest:.0f} ms"])
    columns = ["client", "requests", "failed", "before", "after", "slowest"]
    scene.screen.table("What the clients saw", columns, rows)
    scene.screen.say(
        f"The swap: last answer by version 1 at {_clock(swap.last_old)}, first by version 2 at "
        f"{_clock(swap.first_new)}, {swap.first_new - asked_at:.2f} s after the alias was moved."
    )
    if swap.stale:
        raise DemoError(f"{swap.stale} requests got version 1 after version 2 was shown as active")
    scene.screen.held(f"{len(records)} requests, none failed, every answer the right one")


def _more_answers(scene: Scene, traffic: Traffic) -> None:
    """Wait until every client has got a hundred more answers."""
    least = min(len([r for r in traffic.records if r.client is client]) for client in CLIENTS)
    scene.servers.wait_until(
        "the clients go on", lambda: traffic.answered(at_least=least + 100), TRAFFIC_LIMIT_S
    )


def _active(scene: Scene, version: int) -> bool:
    return scene.probes.active() == version


def _clock(seconds: float) -> str:
    whole = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}"


def _check_promote(scene: Scene) -> list[str]:
    if (version := scene.probes.registry_says()) != 2:  # noqa: PLR2004 (the promoted one)
        raise DemoError(f"MLflow itself says champion is version {version}")
    scene.probes.answers(1, "/versions/1")
    return [scene.probes.champion_is(2), "version 1 still answers callers by number"]


# --- tamper ---------------------------------------------------------------------------------------


def _play_tamper(scene: Scene) -> None:
    scene.screen.say("The publisher of version 3 stamps it: its digest becomes a tag in MLflow.")
    scene.command("stamp", f"models:/{CHURN}/3")
    scene.screen.say("\nThen one byte of it is altered, where MLflow keeps its artifacts:")
    _alter(scene)
    scene.screen.say("\nAnd it is promoted:")
    scene.promote(3)
    scene.wait_until("the gateway says what became of it", lambda: _decided(scene), REFUSAL_LIMIT_S)
    if _active(scene, 3):
        raise DemoError("version 3 was activated, and its bytes should have been refused")
    answer = scene.ask(Call(f"{scene.gateway_url}/models/{CHURN}/versions/3"))
    scene.screen.say(f"\nRefused: {answer.body.get('reason')}")
    scene.screen.say("The old version goes on answering:")
    scene.predict(f"/models/{CHURN}/versions/@{CHAMPION}")


def _alter(scene: Scene) -> None:
    """Change one byte in the middle of version 3's biggest file; its size stays the same."""
    path = artifact_file(CHURN, 3, scene.artifacts)
    middle = path.stat().st_size // 2
    content = bytearray(path.read_bytes())
    byte = content[middle] ^ 0xFF
    where = f"of={shlex.quote(shorten(path))} bs=1 seek={middle} conv=notrunc"
    scene.screen.shell(f"printf '\\{byte:03o}' | dd status=none {where}")
    if scene.sabotage == "tamper":
        return
    content[middle] = byte
    path.write_bytes(content)


def _decided(scene: Scene) -> bool:
    return scene.probes.state(3)[0] == "quarantined" or _active(scene, 3)


def _check_tamper(scene: Scene) -> list[str]:
    if (version := scene.probes.registry_says()) != 3:  # noqa: PLR2004 (the altered one)
        raise DemoError(f"MLflow itself says champion is version {version}")
    stays = scene.probes.champion_stays(2, AGAIN_S)
    return [scene.probes.refused(3), f"{stays}, although MLflow says 3"]


# --- rollback -------------------------------------------------------------------------------------


def _play_rollback(scene: Scene) -> None:
    scene.screen.say("Version 2 turns out to be a bad idea. One command, no registry involved:")
    if scene.sabotage == "rollback":
        scene.screen.shell(f"registry-gateway rollback {CHURN}@{CHAMPION}")
    else:
        scene.command("rollback", f"{CHURN}@{CHAMPION}")
    scene.wait_until("version 1 is active again", lambda: _active(scene, 1), ROLLBACK_LIMIT_S)
    scene.ask(Call(f"{scene.gateway_url}/models/{CHURN}"))
    scene.screen.say("")
    scene.predict(f"/models/{CHURN}/versions/@{CHAMPION}")
    scene.screen.say("\nIt is held there until the alias points at another version in MLflow:")
    scene.command("status")


def _check_rollback(scene: Scene) -> list[str]:
    return [scene.probes.champion_stays(1, AGAIN_S)]


# --- outage ---------------------------------------------------------------------------------------


def _play_outage(scene: Scene) -> None:
    scene.screen.say("MLflow is stopped.")
    process = scene.mlflow.process
    scene.screen.shell(f"kill {process.pid if process else ''}")
    scene.mlflow.stop()
    if scene.sabotage == "outage":
        scene.gateway.stop()
    call = Call(f"{scene.mlflow_url}/health")
    scene.screen.shell(call.command)
    try:
        call.send()
    except DemoError as error:
        scene.screen.output(str(error))
    else:
        raise DemoError("MLflow still answers")
    scene.screen.say("\nPredictions go on:")
    scene.predict(f"/models/{CHURN}/versions/@{CHAMPION}")
    scene.predict(f"/models/{CHURN}", version="2")


def _check_outage(scene: Scene) -> list[str]:
    probes = scene.probes
    down = probes.registry_is_down()
    stays = probes.champion_stays(1, AGAIN_S)
    probes.answers(2, "/versions/2")
    if not answers_ok(f"{scene.gateway_url}/health/ready"):
        raise DemoError("the gateway says that it is not ready")
    return [down, stays, "version 2 answers by number, and the gateway is ready"]


STEPS = (
    Step("predict", "predict by path, by header, by alias", _play_predict, _check_predict),
    Step("promote", "promote version 2 while traffic runs", _play_promote, _check_promote),
    Step("tamper", "promote a version whose bytes were altered", _play_tamper, _check_tamper),
    Step("rollback", "roll back with one command", _play_rollback, _check_rollback),
    Step("outage", "stop MLflow", _play_outage, _check_outage),
)
