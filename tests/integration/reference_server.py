"""MLflow's own scoring servers, in one process: ``python -m … PORT NAME=FOLDER…``.

Each model's is MLflow's application, unchanged, under ``/NAME``: ``POST /NAME/invocations``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers import ProcessGroup, answers, clean_environ, free_ports

REPOSITORY = Path(__file__).parents[2]
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Reference:
    """MLflow's answers."""

    url: str

    def ask(self, name: str, body: Any, query: str = "") -> tuple[int, Any]:
        """Return status and decoded answer of one body; a status above 499 has no answer.

        Numbers that JSON does not have, and MLflow writes, are their names.
        """
        answer = self._post(f"{name}/invocations{query}", json=body)
        if answer.status_code >= 500:
            return answer.status_code, None
        return answer.status_code, json.loads(answer.text, parse_constant=str)

    def send(self, name: str, content: bytes, content_type: str | None) -> int:
        """Return the status of the answer to a body as it is."""
        headers = {} if content_type is None else {"content-type": content_type}
        return self._post(f"{name}/invocations", content=content, headers=headers).status_code

    def _post(self, path: str, **what: Any) -> httpx.Response:
        """Send a request without TLS, the context of which takes 15 ms to make."""
        return httpx.post(f"{self.url}/{path}", timeout=_PATIENCE_S, verify=False, **what)


@contextlib.contextmanager
def reference(models: Mapping[str, Path], folder: Path) -> Iterator[Reference]:
    """Serve models by their names as MLflow does."""
    (port,) = free_ports(1)
    named = [f"{name}={path}" for name, path in models.items()]
    # -B: the worker serves the same folders, and takes no file that the manifest lacks.
    command = [sys.executable, "-B", "-m", "tests.integration.reference_server", str(port), *named]
    environ = clean_environ({"PYTHONPATH": str(REPOSITORY)})
    group = ProcessGroup(command, environ, folder, folder / "reference.log")
    url = f"http://127.0.0.1:{port}"
    group.start(lambda: answers(f"{url}/ready"))
    try:
        yield Reference(url)
    finally:
        group.kill()


def main(port: str, *named: str) -> None:
    """Serve until killed."""
    import mlflow.pyfunc
    import uvicorn
    from mlflow.pyfunc import scoring_server
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    warnings.simplefilter("ignore")

    async def ready(_: Any) -> Any:
        return PlainTextResponse("ready")

    routes: list[Any] = [Route("/ready", ready)]
    for one in named:
        name, _, path = one.partition("=")
        routes.append(Mount(f"/{name}", scoring_server.init(mlflow.pyfunc.load_model(path))))
    uvicorn.run(Starlette(routes=routes), port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
