"""A thousand models, from an empty node: what they cost, and that a change costs what one has.

One of the contract's figures is a quarter of the time of the release
before, whose planes run right after, from the repository's history, on the same registry: in four
times the seconds they must not be done. What a poll cost that release was measured once and is
recorded below, with what the same machine took then for `calibration_s`: another machine, or a busy
one, is held to the recorded figure times its own calibration.

Few models cost the release before about as little as this one, in seconds and in CPU seconds: a
short run would show nothing that unit tests do not, which count the work of one change
(`tests/unit/registry_sync/reconcile/reconciler/test_work_per_change.py`).
"""

import hashlib
import json
import subprocess
import tarfile
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.acceptance.node import REPOSITORY
from tests.acceptance.scale import (
    CALLED_MODELS,
    CHANGES_OF_MODELS,
    MODEL_CHANGES,
    MODELS,
)
from tests.benchmarks.many_models import (
    POLLS,
    Costs,
    Servers,
    active_within,
    measure,
    registry,
)
from tests.servers import MlflowServer, Seaweed

pytestmark = pytest.mark.usefixtures("make_node")  # it pauses what else follows the registry
CALIBRATED_S = 0.2
"""Of `calibration_s`, where the figures below were measured."""
BEFORE = "f34ac4a"
"""The last commit of the release before, which described, planned and told all models in a pass."""
BEFORE_POLL_CPU_S = 5.4
"""Of 1,000 models in a bucket, for a poll that found nothing new."""
CONTROL_CPU_S, GATEWAY_MEGABYTES = 200.0, 100.0
"""The contract's own figures for 1,000 models; before, 985 and 2,400."""
CHANGE_CPU_GROWS_AT_MOST = 1.5
"""To fifty times the models."""
CHANGE_BYTES_GROW_AT_MOST = 2.0
"""To five times the models or more."""


def calibration_s() -> float:
    """Return the CPU seconds of a fixed amount of what both planes do: JSON, hashes, dicts."""
    began = time.process_time()
    for number in range(20_000):
        document = json.dumps({str(n): [n, number, "sha256"] for n in range(10)})
        hashlib.sha256(document.encode()).hexdigest()
        json.loads(document)
    return time.process_time() - began


@pytest.fixture(scope="module")
def pace() -> float:
    """How much slower this machine is now than where the figures were measured; at least 1."""
    return max(1.0, min(calibration_s() for _ in range(5)) / CALIBRATED_S)


@pytest.fixture
def servers(mlflow_registry: MlflowServer, s3_server: Seaweed) -> Servers:
    """The servers of the session."""
    return Servers(mlflow_registry, s3_server)


def release_before(folder: Path) -> Path:
    """Check out the release before; needs git, and a clone with its history."""
    archive = folder / "before.tar"
    command = ["git", "archive", f"--output={archive}", BEFORE, "gateway", "registry_sync"]
    subprocess.run([*command, "migrations"], cwd=REPOSITORY, check=True)
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "before", filter="data")
    return folder / "before"


@pytest.mark.soak(
    "unit/registry_sync/reconcile/reconciler/test_work_per_change.py",
    "integration/test_s3_registry.py",
)
@pytest.mark.parametrize("source", ["s3", "mlflow"])
def test_a_thousand_models_become_active_in_a_quarter_of_the_time(
    source: str, pace: float, servers: Servers, tmp_path: Path
) -> None:
    with registry(source, "lazy", MODELS, servers=servers) as bench:
        costs = measure(bench, Costs(MODELS, source, "lazy"), polls=POLLS)
        print(costs)
        assert costs.seconds is not None, "all are active"
        limit_s = 4 * costs.seconds
        active, seconds = active_within(bench, MODELS, release_before(tmp_path), limit_s)
        print(f"the release before: {active} active in {seconds:.1f} of {limit_s:.1f} s")
        assert 0 < active < MODELS
    assert costs.control_cpu_s is not None
    assert costs.gateway_megabytes is not None
    assert costs.gateway_megabytes <= GATEWAY_MEGABYTES * MODELS / 1000
    assert costs.control_cpu_s <= CONTROL_CPU_S * pace
    assert costs.poll_cpu_s is not None
    assert costs.poll_cpu_s <= BEFORE_POLL_CPU_S / 3 * pace


@pytest.mark.soak(
    "unit/registry_sync/reconcile/reconciler/test_work_per_change.py",
    "unit/gateway/routing/test_table_changes.py",
)
def test_a_change_costs_the_same_in_a_registry_of_any_size(servers: Servers) -> None:
    """Within one run, so that it needs no calibration.

    Some aliases move that are active, and some whose models were never called.
    """
    found = []
    for models in CHANGES_OF_MODELS:
        with registry(
            "mlflow", "on_demand", models, called=CALLED_MODELS, servers=servers
        ) as bench:
            costs = Costs(models, "mlflow", "on_demand")
            found.append(measure(bench, costs, called=CALLED_MODELS, changes=MODEL_CHANGES))
        print(found[-1])
    fewest, most = asdict(found[0]), asdict(found[-1])
    for kind in ("active", "uncalled"):
        written = f"{kind}_change_kilobytes"
        assert most[written] <= CHANGE_BYTES_GROW_AT_MOST * fewest[written], found
        cpu_s = f"{kind}_change_cpu_s"
        assert most[cpu_s] <= CHANGE_CPU_GROWS_AT_MOST * fewest[cpu_s], found
