"""Every model whose libraries the set-up has, beside MLflow's application; in one process each.

The same models go through registry, gateway and worker in the long run, and some of them always:
`tests/acceptance/test_models_answer_as_mlflow_serves_them.py`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models.corpus.beside import versions
from tests.models.corpus.cases import WITHOUT_EXAMPLE, Case
from tests.models.corpus.compare import Answer, faults
from tests.models.corpus.table import CASES
from tests.servers import clean_environ

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 1200.0
HERE = [case for case in CASES.values() if not case.needs]
Told = dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What was answered, or why not, by case and version."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "models").mkdir()
    names = [case.name for case in HERE]
    with (folder / "beside.log").open("w") as log:
        done = subprocess.run(
            [
                sys.executable,
                "-B",
                "-m",
                "tests.models.corpus.beside",
                str(folder / "models"),
                *names,
            ],
            env=clean_environ({"PYTHONPATH": str(REPOSITORY)}),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(one["name"], one["version"]): one for one in lines}


@pytest.mark.parametrize(
    ("case", "version"),
    [
        pytest.param(
            case, version, id=f"{case.name}{', no example' * (version == WITHOUT_EXAMPLE)}"
        )
        for case in HERE
        for version in versions(case)
    ],
)
def test_a_worker_answers_what_mlflow_answers_or_differs_as_listed(
    told: Told, case: Case, version: int
) -> None:
    one = told[case.name, version]
    assert "failure" not in one, one["failure"]
    answers = {
        form: (Answer(*ours), Answer(*theirs)) for form, (ours, theirs) in one["answers"].items()
    }
    assert answers.keys() == case.bodies.keys()
    wrong = faults(case, version, answers)
    assert not wrong, "\n".join(wrong)
