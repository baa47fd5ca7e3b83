"""A gateway whose workers lie: real processes that say what no worker of ours does.

No registry is needed: the catalogue is put by the test, and the models' own interpreter lies.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    VersionState,
)
from gateway.system.files.sealed import seal
from tests.acceptance.scale import LIES_TO_A_GATEWAY
from tests.acceptance.waiting import until
from tests.fakes import lying_worker
from tests.fakes.lies import MOMENTS, OWN_ID, Lie
from tests.servers import answers, clean_environ, free_ports

DIGEST = "sha256:" + "a" * 64
GOOD = ("good", "better")
PATIENCE_S = 30.0
_SETTINGS = {
    "GATEWAY_MAX_RESIDENT": "4",
    "GATEWAY_REQUEST_TIMEOUT_S": "1",
    "ACCEPTANCE_CONSTANTS": '{"STUCK_GRACE_S": 0.5}',
    "GATEWAY_LOAD_TIMEOUT_S": "2",
    "GATEWAY_LOAD_BUDGET_S": "20",
    "GATEWAY_PROBE_INTERVAL_S": "0.2",
    "GATEWAY_LOG_FORMAT": "json",
    "ACCEPTANCE_WITHOUT": "torch",
}


@dataclass
class LiedTo:
    """A gateway that runs, with a model for each lie."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes]
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=PATIENCE_S))
    lies: int = 0

    @cached_property
    def control(self) -> httpx.Client:
        """A client of the control socket."""
        transport = httpx.HTTPTransport(uds=str(self.folder / "node" / "gateway.sock"))
        return httpx.Client(transport=transport, base_url="http://gateway", timeout=PATIENCE_S)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def ask(self, model: str) -> httpx.Response:
        url = f"{self.url}/models/{model}/versions/1/predict"
        return self.http.post(url, json={"features": [1]})

    def put(self, script: object) -> str:
        """Have the next liar tell these lies; return its name."""
        self.lies += 1
        name = f"liar-{self.lies}"
        (self.folder / f"{name}.json").write_text(json.dumps(script))
        return name

    def look(self) -> None:
        """Ask for what operators and the control plane are told; both must be answered."""
        self.http.get(f"{self.url}/metrics").raise_for_status()
        told = self.control.get("/observe").raise_for_status().json()
        assert told["node_id"], told

    def metric(self, name: str) -> float:
        text = self.http.get(f"{self.url}/metrics").raise_for_status().text
        found = re.findall(rf"^gateway_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def workers(self) -> int:
        count = 0
        for one in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it has ended meanwhile
                count += str(self.folder) in "".join(one.cmdline())
        return count


@pytest.fixture(scope="module")
def gateway() -> Iterator[LiedTo]:
    folder = Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp"))
    port = free_ports(1)[0]
    environ = {"GATEWAY_NODE_DIR": str(folder / "node"), "GATEWAY_PORT": str(port), **_SETTINGS}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway"], env=clean_environ(environ), stderr=log, stdout=log
        )
    made = LiedTo(folder, f"http://127.0.0.1:{port}", process)
    try:
        _fill(folder, made)
        yield made
    finally:
        process.terminate()
        status = process.wait(60)
        made.http.close()
        made.control.close()
        shutil.rmtree(folder)
    assert status == 0


def _fill(folder: Path, made: LiedTo) -> None:
    """Write the artifact's record and the interpreters, and put the catalogue."""
    interpreter = folder / "interpreter"
    program = Path(lying_worker.__file__).read_text()
    path = f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n"
    head, rest = program.split("from __future__ import annotations\n")
    interpreter.write_text(
        f"#!{sys.executable}\n{head}from __future__ import annotations\n{path}{rest}"
    )
    interpreter.chmod(0o755)
    store = folder / "node" / "artifacts"
    store.mkdir(parents=True, exist_ok=True)
    record = json.dumps({"format_version": 1, "digest": DIGEST}, indent=1).encode()
    (store / f"{DIGEST.removeprefix('sha256:')}.json").write_bytes(seal(record))
    names = [*GOOD, *(f"liar-{number}" for number in range(1, LIES_TO_A_GATEWAY * 2 + 10))]
    models = [_model(name, interpreter.with_name(name)) for name in names]
    for name in names:
        interpreter.with_name(name).symlink_to(interpreter)
    catalogue = Catalogue(writer="test", epoch=1, models=models, listed_at=1.0)
    until(lambda: answers(f"{made.url}/health/live"), "the gateway lives")
    answer = made.control.put("/catalogue", content=catalogue.model_dump_json())
    assert answer.status_code < 300, answer.text


def _model(name: str, interpreter: Path) -> CatalogueModel:
    version = CatalogueVersion(
        version=1,
        state=VersionState.AVAILABLE,
        digest=DIGEST,
        expected_digest=DIGEST,
        accepted_digest=DIGEST,
        environment=Environment(kind="own", python=str(interpreter), digest="e"),
    )
    return CatalogueModel(name=name, versions=[version])


def test_others_are_answered_and_nothing_stays_taken(gateway: LiedTo) -> None:
    for name in GOOD:
        assert gateway.ask(name).json() == {"predictions": [1]}, gateway.log
    before = gateway.descriptors()

    @settings(
        max_examples=LIES_TO_A_GATEWAY, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(moment=MOMENTS, then=st.sampled_from(["go on", "go on", "go on", "end", "hang"]))
    def lied(moment: tuple[int, list[Lie]], then: str) -> None:
        at, told = moment
        frames = [(one.id == OWN_ID, one.as_answer_to(0).hex(), one.times) for one in told]
        liar = gateway.put({"moment": at, "frames": frames, "then": then})
        for _ in range(2):
            answer = gateway.ask(liar)
            assert answer.status_code < 600
            assert answer.headers["content-type"] in {
                "application/json",
                "application/problem+json",
            }
        for name in GOOD:
            answer = gateway.ask(name)
            assert (answer.status_code, answer.content) == (200, lying_worker.BODY), answer.text
        gateway.look()

    lied()
    for name in ("leases", "in_flight", "in_flight_bytes"):
        until(lambda name=name: gateway.metric(name) == 0, f"{name} come back")  # type: ignore[misc]
    until(lambda: gateway.workers() <= 4, "no worker is left over")
    until(lambda: gateway.descriptors() <= before + 4 * 4, "the descriptors of workers come back")
    assert "Traceback" not in gateway.log
    assert "internal error" not in gateway.log
    assert "invalid message" in gateway.log, "some were found out"
