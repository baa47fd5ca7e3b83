"""A model logged with another scikit-learn, beside one on ours: each with what it was made with."""

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sklearn
from uv import find_uv_bin

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.processes import alive
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.surface import Document, active_version
from tests.acceptance.traffic import ROWS, Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

OLDER = "1.6.1"
OUR_LIBRARIES = str(Path(sklearn.__file__).resolve().parents[2])
REQUIREMENTS = [
    f"scikit-learn=={OLDER}",
    "numpy==2.2.6",
    "pandas==2.2.3",
    "mlflow-skinny==3.17.2",
    "cloudpickle==3.1.2",
]
"""The least with which the worker serves this flavor."""
BUILD_PATIENCE_S = 240.0
LOOK_EVERY_S = 0.5
"""While an environment is built, which takes many seconds."""
LOG = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.ensemble import GradientBoostingRegressor

url, name, requirements = sys.argv[1:]
mlflow.set_tracking_uri(url)
rows = pd.DataFrame(np.random.default_rng(7).uniform(0, 8, (200, 3)), columns=["a", "b", "c"])
model = GradientBoostingRegressor(n_estimators=20, random_state=1)
model.fit(rows, rows["a"] * rows["b"] - rows["c"])
info = mlflow.sklearn.log_model(
    model,
    name="model",
    registered_model_name=name,
    signature=infer_signature(rows, model.predict(rows)),
    input_example=rows.head(2),
    pip_requirements=json.loads(requirements),
    serialization_format="cloudpickle",
)
asked = rows.head(24)
print(json.dumps({
    "version": int(info.registered_model_version),
    "rows": asked.values.tolist(),
    "answers": model.predict(asked).tolist(),
}))
"""


@dataclass(frozen=True)
class Older:
    """A version logged with the older scikit-learn, by itself: its rows and its answers to them."""

    version: int
    rows: list[list[float]]
    answers: list[float]

    def body(self, row: int) -> dict[str, Any]:
        return {"dataframe_split": {"columns": ["a", "b", "c"], "data": [self.rows[row]]}}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What keeps uv's downloads between the builds of this module."""
    return {"UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv"))}


@pytest.fixture(scope="module")
def older_python(tmp_path_factory: pytest.TempPathFactory, downloads: dict[str, str]) -> Path:
    """An ML engineer's own environment, with the older scikit-learn."""
    folder = tmp_path_factory.mktemp("engineer") / "venv"
    python = folder / "bin" / "python"
    environ = {**os.environ, **downloads}
    for command in (
        ["venv", "--no-project", "--python", "3.11", str(folder)],
        ["pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS],
    ):
        subprocess.run([find_uv_bin(), *command], env=environ, check=True, timeout=BUILD_PATIENCE_S)
    return python


@pytest.fixture(scope="module")
def started(make_module_node: NodeMaker, downloads: dict[str, str]) -> Node:
    """A node that builds environments. While one is built a new listing every second will do."""
    return make_module_node(control=downloads | {"REGISTRY_SYNC_POLL_INTERVAL_S": "1"}).start()


@pytest.fixture
def node(started: Node) -> Node:
    """The node, both planes of it running whatever an earlier test left."""
    return started.start()


def log_older(
    python: Path, registry: Registry, name: str, requirements: list[str] | None = None
) -> Older:
    """Log and register a model from an environment that is not ours."""
    arguments = [LOG, registry.url, name, json.dumps(requirements or REQUIREMENTS)]
    done = subprocess.run(
        [python, "-I", "-c", *arguments],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=BUILD_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Older(**json.loads(done.stdout.splitlines()[-1]))


async def right(node: Node, http: httpx.AsyncClient, name: str, older: Older) -> None:
    """Every row is answered exactly as the engineer's own environment answered it."""
    for row, expected in enumerate(older.answers):
        answer = await ask(http, node.url, Call(name, row), older.body(row))
        assert answer.ok, answer
        assert answer.predictions == [expected]


def libraries_of(pid: int) -> str:
    """Where the scikit-learn is from that the process has in its memory."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/site-packages/sklearn/" in line}
    (folder,) = {path.partition("/site-packages/sklearn/")[0] for path in paths}
    return folder


async def test_an_older_scikit_learn_and_ours_each_serve_what_was_logged_with_them(
    node: Node, registry: Registry, older_python: Path
) -> None:
    ours, theirs = registry.name("ours"), registry.name("theirs")
    registry.point(
        ours, "champion", await asyncio.to_thread(registry.publish, ours, LinearModel(2.0))
    )
    older = await asyncio.to_thread(log_older, older_python, registry, theirs)
    registry.point(theirs, "champion", older.version)
    expected = row_answers(2.0)
    async with client() as http:
        await node.active(http, ours, "champion", 1)

        # Beside our libraries it does not even load, and says so.
        async def refused() -> Document | None:
            shown = await node.version(http, theirs, older.version)
            return shown if "rejected" in str(shown.get("reason")) else None

        shown = await eventually(refused, "the older model is rejected beside our libraries")
        verdict = shown["dependency_verdict"]
        assert verdict["status"] == "warn"
        assert (
            f"scikit-learn (here {sklearn.__version__}, required =={OLDER})"
            in verdict["mismatches"]
        )

        # Its tag gives it an environment of its own, while the other goes on being served.
        async with Traffic(http, node.url, [asks(ours)] * 2, lambda c: row_body(c.row)) as traffic:
            registry.client.set_model_version_tag(
                theirs, str(older.version), "gateway.environment", "own"
            )

            async def active() -> bool:
                return active_version(await node.model(http, theirs), "champion") == older.version

            await eventually(
                active,
                "the older model serves",
                patience_s=BUILD_PATIENCE_S,
                look_every_s=LOOK_EVERY_S,
            )
            await right(node, http, theirs, older)
        wrong = [a for a in traffic.answers if not a.ok or a.predictions != [expected[a.call.row]]]
        assert not wrong, describe(wrong)
        assert len(traffic.answers) > ROWS

        # Each worker says itself what it runs, and the kernel agrees.
        in_own = await node.version(http, theirs, older.version)
        in_ours = await node.version(http, ours, 1)
        assert in_own["dependency_verdict"] == {"status": "ok", "mismatches": []}
        assert in_own["environment"]["kind"] == "own"
        assert in_ours["environment"]["kind"] == "shared"
        assert in_own["replicas"][0]["frameworks"]["scikit-learn"] == OLDER
        assert in_ours["replicas"][0]["frameworks"]["scikit-learn"] == sklearn.__version__ != OLDER
        folder = node.node_dir / "environments" / in_own["environment"]["digest"]
        assert libraries_of(in_own["replicas"][0]["pid"]).startswith(str(folder))
        assert libraries_of(in_ours["replicas"][0]["pid"]) == OUR_LIBRARIES

        # A worker that is killed comes back where it was.
        os.kill(in_own["replicas"][0]["pid"], signal.SIGKILL)
        await eventually_true(
            lambda: not alive(in_own["replicas"][0]["pid"]), "the killed worker is gone"
        )
        await right(node, http, theirs, older)

        # A gateway that is killed takes its workers with it, and needs nobody to serve again.
        pid = (await node.version(http, theirs, older.version))["replicas"][0]["pid"]
        node.stop_control()
        assert node.gateway is not None
        node.gateway.kill()
        await eventually_true(lambda: not alive(pid), "the worker is gone with its gateway")
        node.start_gateway()
        await right(node, http, theirs, older)
        again = await node.version(http, theirs, older.version)
        assert again["replicas"][0]["frameworks"]["scikit-learn"] == OLDER
