"""The corpus of models on a real registry, asked here and of MLflow's own scoring server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.acceptance.node import REPOSITORY, Node
from tests.acceptance.processes import MARK, alive, marked
from tests.acceptance.registry import Registry
from tests.acceptance.waiting import until
from tests.models.corpus.cases import Case
from tests.models.corpus.compare import Answer
from tests.servers import ProcessGroup, answers, clean_environ, free_ports

BUILD_LIMIT_S = 1200.0
REQUEST_LIMIT_S = 300.0
_ENVIRON = {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def publish(cases: Iterable[Case], url: str, folder: Path) -> str:
    """Register every case twice, with its example and without; return what their names begin with.

    In a process of its own for all cases that need the same libraries.
    """
    prefix = f"corpus-{uuid.uuid4().hex[:8]}-"
    groups: dict[tuple[str, ...], list[str]] = {}
    for case in cases:
        groups.setdefault(case.needs, []).append(case.name)
    for names in groups.values():
        command = [sys.executable, "-m", "tests.models.corpus.build", url, prefix, *names]
        done = subprocess.run(
            command,
            env=clean_environ(_ENVIRON),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name')]
        failures = [f"{one['name']}:\n{one['failure']}" for one in said if one["failure"]]
        assert not failures, "\n".join(failures)
        assert [one["name"] for one in said] == names, done.stderr[-3000:]
    return prefix


def end_java(mark: str) -> None:
    """End what H2O's models leave behind: a virtual machine in a session of its own."""
    machines = [process.pid for process in marked(mark) if "h2o.jar" in process.command]
    for pid in machines:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, machines)), "H2O's virtual machines end")


class ReferenceServers:
    """MLflow's scoring servers for folders of models, one at a time."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        """Start the process of which each server is a fork.

        It writes no compiled code, since a folder of the registry must stay as it is.
        """
        self._log = (folder / "reference.log").open("ab")
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.models.corpus.reference", *modules],
            env=clean_environ(_ENVIRON | {MARK: self._mark}),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def start(self, folder: Path) -> None:
        """Have the next server started, and the one before ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()

    def url(self) -> str:
        """Wait for the server that was started last; return its address, or why there is none."""
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        if "port" not in said:
            return str(said["failure"])
        return f"http://127.0.0.1:{said['port']}/invocations"

    def close(self) -> None:
        """End all of it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        end_java(self._mark)


@contextlib.contextmanager
def served_by_the_command(model: Path, folder: Path) -> Iterator[str]:
    """Run ``mlflow models serve`` for a model; give the address that is asked."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", str(model), "--port", str(port)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = clean_environ({"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"})
    group = ProcessGroup(command, environ, folder, folder / "serve.log")
    try:
        group.start(lambda: answers(f"http://127.0.0.1:{port}/ping"))
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        group.kill()


class Corpus:
    """Registered cases, and who is asked about them."""

    def __init__(
        self,
        node: Node,
        prefix: str,
        registry: Registry,
        registry_root: Path,
        reference: ReferenceServers,
    ) -> None:
        """Store who is asked, and where the registry's server keeps its files."""
        self._node = node
        self._prefix = prefix
        self._registry = registry
        self._registry_root = registry_root
        self._reference = reference
        self._client = httpx.Client(timeout=REQUEST_LIMIT_S, trust_env=False, verify=False)

    def ask(self, case: Case, version: int) -> dict[str, tuple[Answer, Answer]]:
        """Return what both servers answer to each body of a case: ours, then MLflow's."""
        name = self._prefix + case.name
        self._reference.start(self.folder(case, version))
        shown = f"{self._node.url}/models/{quote(name, safe='')}/versions/{version}"
        until(lambda: self._client.get(shown).status_code == 200, f"{name}/{version} is known")
        ours = {form: self._post(f"{shown}/predict", body) for form, body in case.bodies.items()}
        reference = self._reference.url()
        return {
            form: (ours[form], self._ask(reference, body)) for form, body in case.bodies.items()
        }

    def ask_for_probabilities(self, case: Case, version: int) -> Answer:
        """Return what our server answers to the first body of a case, asked for probabilities."""
        name = self._prefix + case.name
        shown = f"{self._node.url}/models/{quote(name, safe='')}/versions/{version}"
        until(lambda: self._client.get(shown).status_code == 200, f"{name}/{version} is known")
        body = next(iter(case.bodies.values()))
        return self._post(f"{shown}/predict?probabilities=true", body)

    def folder(self, case: Case, version: int) -> Path:
        """Return where the registry's server keeps the files of a version."""
        name = self._prefix + case.name
        return self._registry.proxied_files(name, version, self._registry_root)

    def ask_reference(self, case: Case, address: str) -> dict[str, Answer]:
        """Return what the server at this address answers to each body of a case."""
        return {form: self._ask(address, body) for form, body in case.bodies.items()}

    def close(self) -> None:
        """End the connections and the servers."""
        self._client.close()
        self._reference.close()
        end_java(self._node.mark)

    def _ask(self, reference: str, body: dict[str, Any]) -> Answer:
        """Ask MLflow's server, which closes the connection after an error of its own."""
        if not reference.startswith("http://"):
            return Answer(503, reference)
        return self._post(reference, body, connection="close")

    def _post(self, url: str, body: dict[str, Any], connection: str = "keep-alive") -> Answer:
        answer = self._client.post(url, json=body, headers={"connection": connection})
        return Answer(answer.status_code, answer.text)
