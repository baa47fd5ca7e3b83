"""Before the first step: a folder of our own, three servers, trained and registered models."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.errors import DemoError
from deploy.demo.models import CHURN, WINE, Trained, prepare_client, train_and_register
from deploy.demo.probes import Probes, answers_ok
from deploy.demo.screen import Screen
from deploy.demo.servers import Server, Servers, free_port
from deploy.demo.story import Scene, shorten

START_LIMIT_S = 180.0
POLL_INTERVAL_S = 1.0
_MARK = "made-by-make-demo"
_LOOPBACK = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
_NOT_INHERITED = ("GATEWAY_", "REGISTRY_SYNC_", "MLFLOW_", "AWS_", "DEMO_", "PYTHONWARNINGS")


@contextlib.contextmanager
def own_folder(state: Path) -> Iterator[None]:
    """Empty the folder, and lock it for the block.

    Raises:
        DemoError: It has files that the demonstration did not write, or another run uses it.
    """
    mark = state / _MARK
    if state.exists() and any(state.iterdir()) and not mark.exists():
        raise DemoError(f"{state} holds files that are not the demonstration's; name another one")
    state.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demonstration is using {state}") from None
        for path in state.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != mark:
                path.unlink()
        for name in ("mlflow", "node", "logs"):
            (state / name).mkdir()
        yield


@dataclass(frozen=True, slots=True)
class Opening:
    """Starts the servers and registers the models for the steps.

    Attributes:
        state: The folder for all files of the demonstration.
    """

    screen: Screen
    servers: Servers
    state: Path
    sabotage: str | None

    def prepare(self) -> Scene:
        """Start the servers, train and register the models, wait until both are served.

        Raises:
            DemoError: A server did not start, or a model was not served, in time.
        """
        mlflow_port, gateway_port = free_port(5000), free_port(8080)
        mlflow_url = f"http://127.0.0.1:{mlflow_port}"
        gateway_url = f"http://127.0.0.1:{gateway_port}"
        os.environ |= _LOOPBACK
        prepare_client(mlflow_url)
        node = self.state / "node"
        settings = {"MLFLOW_TRACKING_URI": mlflow_url, "REGISTRY_SYNC_NODE_DIR": str(node)}
        mlflow = self._mlflow(mlflow_port)
        gateway = self._plane(
            "gateway",
            "gateway",
            {
                "GATEWAY_PORT": str(gateway_port),
                "GATEWAY_NODE_DIR": str(node),
                # A busy machine may slow one of two equal versions: that must not undo a step.
                "GATEWAY_OBSERVATION_WINDOW_S": "0",
            },
        )
        control_plane = self._plane(
            "control-plane",
            "registry_sync",
            settings
            | {
                "REGISTRY_SYNC_POLL_INTERVAL_S": str(POLL_INTERVAL_S),
                "REGISTRY_SYNC_OPERATIONS_PORT": "0",
            },
        )
        trained = self._models_in(mlflow, mlflow_url, gateway)
        self.servers.start(control_plane)
        scene = Scene(
            screen=self.screen,
            servers=self.servers,
            mlflow=mlflow,
            gateway=gateway,
            mlflow_url=mlflow_url,
            gateway_url=gateway_url,
            artifacts=self.state / "mlflow" / "artifacts",
            environ=_inherited() | settings | {"COLUMNS": "160"},
            shown_environ=settings | {"REGISTRY_SYNC_NODE_DIR": shorten(node)},
            trained=trained,
            probes=Probes(gateway_url, mlflow_url, trained),
            sabotage=self.sabotage,
        )
        self._wait("the gateway is ready", lambda: answers_ok(f"{gateway_url}/health/ready"))
        self._wait("the gateway serves both champions", lambda: _both_served(scene.probes))
        self.screen.held(f"the gateway serves both champions on {gateway_url}")
        return scene

    def _models_in(self, mlflow: Server, mlflow_url: str, gateway: Server) -> Trained:
        """Start MLflow, and meanwhile the gateway; train and register."""
        where = shorten(self.state)
        self.screen.say(f"Everything that this run writes, logs included, is in {where}")
        self.servers.start(mlflow)
        self.servers.start(gateway)
        self._wait("a real MLflow server is up", lambda: answers_ok(f"{mlflow_url}/health"))
        self.screen.held(f"a real MLflow server on {mlflow_url}")
        with self.screen.waiting("training and registering models"):
            return train_and_register(self.screen.held, self._log("training"))

    def _wait(self, what: str, is_so: Callable[[], bool]) -> None:
        with self.screen.waiting(f"waiting until {what}"):
            self.servers.wait_until(what, is_so, START_LIMIT_S)

    def _mlflow(self, port: int) -> Server:
        folder = self.state / "mlflow"
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        settings = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        return Server("mlflow", command, _inherited() | settings, self._log("mlflow"))

    def _plane(self, name: str, package: str, settings: Mapping[str, str]) -> Server:
        command = [sys.executable, "-m", package]
        return Server(name, command, _inherited() | dict(settings), self._log(name))

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"


def _inherited() -> dict[str, str]:
    """Return this process's environment without variables that configure the servers."""
    return {name: v for name, v in os.environ.items() if not name.startswith(_NOT_INHERITED)}


def _both_served(probes: Probes) -> bool:
    try:
        return probes.active(CHURN) == 1 and probes.active(WINE) == 1
    except DemoError:  # the gateway does not listen yet
        return False
