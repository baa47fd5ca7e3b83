"""An alias that MLflow accepts is followed, called, printed and kept, whatever its letters are."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.traffic import client
from tests.models.catalogue import LinearModel
from tests.servers import Postgres

pytestmark = pytest.mark.soak(
    "contracts/test_ledger.py",
    "integration/test_mlflow_registry.py",
)
ALIASES = ("\u00fcn\u00ef", "\u751f\u7523", "\U0001d4ea" * 8)


@pytest.fixture
async def node(make_node: NodeMaker, postgresql_server: Postgres) -> AsyncIterator[Node]:
    """A node whose ledger is on PostgreSQL."""
    url = postgresql_server.empty_database()
    made = make_node(control={"REGISTRY_SYNC_DATABASE_URL": url}).start()
    yield made
    made.stop_control()


async def version_by(
    http: httpx.AsyncClient, node: Node, model: str, alias: str
) -> set[tuple[str, float]]:
    """Ask for an alias in every way that there is; versions and answers."""
    path = f"{node.url}/models/{quote(model, safe='')}"
    encoded = quote(alias, safe="")
    asked = [
        (f"{path}/versions/@{encoded}/predict", {}),
        (f"{path}/versions/%40{encoded}/predict", {}),
        (f"{path}/predict", {"X-Model-Version": encoded}),
        (f"{path}/predict", {"X-Model-Version": alias.encode()}),
        (f"{path}/predict", {"X-Model-Version": f"@{alias}".encode()}),
    ]
    found = set()
    for url, headers in asked:
        answer = await http.post(url, json=row_body(3), headers=headers)  # type: ignore[arg-type]  # bytes, too
        assert answer.status_code == 200, answer.text
        found.add((answer.headers["x-model-version"], answer.json()["predictions"][0]))
    return found


def in_ascii(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the terminal knows no letter beyond ASCII."""
    return subprocess.run(
        [sys.executable, "-m", "registry_sync", *arguments],
        env={
            **os.environ,
            "REGISTRY_SYNC_NODE_DIR": str(node.node_dir),
            "PYTHONIOENCODING": "ascii",
            "COLUMNS": "400",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_an_alias_is_followed_called_printed_and_kept(node: Node, registry: Registry) -> None:
    model = registry.name("lett\u00e9r\u00ebd")
    answers = {registry.publish(model, LinearModel(s)): row_answers(s)[3] for s in (1.0, 2.0)}
    for alias in ALIASES:
        registry.point(model, alias, 1)
    async with client(2) as http:
        for alias in ALIASES:
            await node.active(http, model, alias, 1)
            assert await version_by(http, node, model, alias) == {("1", answers[1])}
            registry.point(model, alias, 2)
            await node.active(http, model, alias, 2)
            assert await version_by(http, node, model, alias) == {("2", answers[2])}
            assert await node.metric(http, "gateway_swaps_total", model=model, alias=alias) == 2
            done = node.command("rollback", f"{model}@{alias}")
            assert done.returncode == 0, done.stderr
            assert f"{model}@{alias} is back at version 1" in done.stdout
            assert await version_by(http, node, model, alias) == {("1", answers[1])}
        (one,) = json.loads(in_ascii(node, "explain", model, ALIASES[0], "--json").stdout)[
            "selectors"
        ]
        assert (one["selector"], one["why"]) == (f"@{ALIASES[0]}", "held")
        for command in (("status",), ("history", model), ("explain", model)):
            done = in_ascii(node, *command)
            assert done.returncode == 0, done.stderr
            assert r"@\xfcn\xef" in done.stdout, done.stdout
        # What is kept says the same to the processes of the next start.
        assert node.control is not None
        assert node.gateway is not None
        node.control.kill()
        node.gateway.kill()
        node.start()
        for alias in ALIASES:
            assert await version_by(http, node, model, alias) == {("1", answers[1])}
        await node.passes(http, 2)
        for alias in ALIASES:
            assert (await node.model(http, model) or {})["aliases"][alias]["active"] == 1
        for alias in ALIASES:
            done = node.command("unpin", f"{model}@{alias}")
            assert done.returncode == 0, done.stderr
            await node.active(http, model, alias, 2)
        registry.client.delete_registered_model_alias(model, ALIASES[0])
        await node.passes(http, 3)
        url = f"{node.url}/models/{quote(model)}/versions/@{quote(ALIASES[0])}/predict"
        gone = await http.post(url, json=row_body(3))
        assert (gone.status_code, gone.json()["code"]) == (404, "alias_not_found")
        assert ALIASES[0] in gone.json()["detail"]
