"""Ask models here and of MLflow: ``python -m tests.models.corpus.beside FOLDER CASE…``.

A few cases at a time are saved, loaded and asked in a process of their own, forked from this one,
which has the libraries imported: a fork for each would cost as much as what it does. Ours is what a
worker does from LOAD to the answer, without sockets; MLflow's is the application of ``mlflow models
serve``. Writes one line of JSON for each: case, version, the answers to each body (ours, then
MLflow's), and why there are none.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.models.corpus.cases import WITH_EXAMPLE, WITHOUT_EXAMPLE, Case
from tests.models.corpus.table import CASES

LOADED_BEFORE = (
    *("mlflow.pyfunc.scoring_server", "mlflow.sklearn", "mlflow.pytorch", "mlflow.models"),
    *(
        "gateway.worker.loading",
        "registry_sync.artifacts.description",
        "tests.integration.worker_process",
    ),
    *("pandas", "sklearn.ensemble", "skops.io", "torch", "httpx", "fastapi"),
)
_STATUS = {"invalid_input": 422, "not_finite": 422, "model_error": 500}
"""What the gateway answers for a worker's code."""

CASES_PER_PROCESS = 12
Answered = tuple[int, str]


def versions(case: Case) -> tuple[int, ...]:
    """Return the versions that are asked here: ways to answer differ by their example only."""
    return (WITH_EXAMPLE,) if case.name.startswith("answers-") else (WITH_EXAMPLE, WITHOUT_EXAMPLE)


def save(case: Case, version: int, folder: Path) -> Path:
    """Save a model as `tests.models.corpus.build` logs it."""
    logging = case.build()
    function = logging.function.replace("log_", "save_")
    save_model = getattr(importlib.import_module(f"mlflow.{logging.flavor}"), function)
    more = {"input_example": logging.example} if version == WITH_EXAMPLE else logging.without
    path = folder / "artifact"
    save_model(path=str(path), **{"pip_requirements": ["mlflow"], **logging.arguments, **more})
    return path


def ask_here(artifact: Path, folder: Path, bodies: dict[str, bytes]) -> dict[str, Answered]:
    """Return what a worker answers to each body, with the gateway's statuses."""
    from gateway.worker.errors import RequestRefusedError
    from gateway.worker.loading.load import LoadFailedError, load
    from gateway.worker.rows.inputs import join
    from tests.integration.worker_process import order_of

    try:
        model = load(order_of(artifact, folder), lambda _message: None).model
    except LoadFailedError as error:
        return dict.fromkeys(bodies, (503, error.report.message))

    def asked(body: bytes) -> Answered:
        try:
            inputs = join([model.decode(body)])
            answer = model.encode(model.predict(inputs), [inputs.rows], predict_s=0.0)[0]
        except RequestRefusedError as refusal:
            answer = refusal
        if isinstance(answer, RequestRefusedError):
            return _STATUS[answer.code], f"{answer.code}: {answer.message} {answer.details}"
        return 200, answer.decode()

    return {form: asked(body) for form, body in bodies.items()}


def ask_mlflow(artifact: Path, bodies: dict[str, bytes]) -> dict[str, Answered]:
    """Return what the application of ``mlflow models serve`` answers to each body."""
    import httpx
    from mlflow.pyfunc import load_model, scoring_server

    try:
        application = scoring_server.init(load_model(str(artifact)))
    except Exception:  # noqa: BLE001  # whatever a model raises is told
        return dict.fromkeys(bodies, (503, traceback.format_exc()))

    async def asked() -> dict[str, Answered]:
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        headers = {"content-type": "application/json"}
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as client:
            answers = {}
            for form, body in bodies.items():
                answer = await client.post("/invocations", content=body, headers=headers)
                answers[form] = (answer.status_code, answer.text)
            return answers

    return asyncio.run(asked())


def ask(case: Case, version: int, folder: Path, bodies: dict[str, bytes]) -> dict[str, Any]:
    """Return what is told of one version of a case."""
    try:
        artifact = save(case, version, folder)
        theirs, ours = ask_mlflow(artifact, bodies), ask_here(artifact, folder, bodies)
    except Exception:  # noqa: BLE001  # whatever a library raises is told
        return {"failure": traceback.format_exc()}
    return {"answers": {form: (ours[form], theirs[form]) for form in bodies}}


def ask_versions(case: Case, folder: Path) -> None:
    """Do `ask` for each version; write what is told in a folder for each."""
    # Before a model is saved: MLflow changes the values of an example that it writes.
    bodies = {form: json.dumps(body).encode() for form, body in case.bodies.items()}
    for version in versions(case):
        own = folder / str(version)
        own.mkdir(parents=True)
        os.chdir(own)
        (own / "told.json").write_text(json.dumps(ask(case, version, own, bodies)))


def in_a_process(names: Sequence[str], folder: Path) -> None:
    """Do `ask_versions` for these cases in a fork of this process."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(2, 1)  # what a model prints is no answer of ours
            for name in names:
                ask_versions(CASES[name], folder / name)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def told(folder: Path, version: int) -> dict[str, Any]:
    """Return what the fork of a case has written of a version."""
    path = folder / str(version) / "told.json"
    if not path.exists():
        return {"failure": "its process ended without a word"}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def main(folder: str, *names: str) -> None:
    """Ask the cases with these names, one after the other."""
    warnings.simplefilter("ignore")
    for module in LOADED_BEFORE:
        importlib.import_module(module)
    warm = Path(folder) / "warm"
    warm.mkdir()
    save(CASES[names[0]], WITH_EXAMPLE, warm)  # MLflow looks through all distributions once
    gc.collect()
    gc.freeze()  # as a worker's parent does: else each fork would look at all of it again
    for first in range(0, len(names), CASES_PER_PROCESS):
        together = names[first : first + CASES_PER_PROCESS]
        in_a_process(together, Path(folder))
        for name in together:
            for version in versions(CASES[name]):
                line = {"name": name, "version": version, **told(Path(folder) / name, version)}
                sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
