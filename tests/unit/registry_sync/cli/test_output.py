"""Names and reasons come from strangers: none of them acts on an operator's terminal."""

import asyncio
import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from gateway.system.logs.redaction import WITHHELD, remember
from registry_sync import bootstrap
from registry_sync.cli import app as cli, client
from registry_sync.cli.client import URL_VARIABLE
from registry_sync.domain.operation_bodies import (
    AliasState,
    FetchState,
    FreezeState,
    ModelState,
    State,
    StepState,
    StoreState,
    WebhookState,
)
from registry_sync.errors import SourceError
from registry_sync.operations.errors import problem
from registry_sync.operations.listeners import local_server
from registry_sync.settings import SyncSettings
from tests.fakes.operating import run, serving
from tests.fakes.sockets import listening_at
from tests.servers import free_ports

EVIL = "churn\x1b]0;owned\x07\x1b[2J\n2026 forged line\x9b1A\u202egnp\u2066\x7f\r"
SHOWN = r"churn\x1b]0;owned\x07\x1b[2J\n2026 forged line\x9b1A\u202egnp\u2066\x7f\r"
TOKEN, OF_ENVIRONMENT = "c4nary/of-the+command", "c4nary-of.environ"
ACTING = {"\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\x7f", "\r"}

STATE = State(
    node_id=EVIL,
    tracking_uri=EVIL,
    listed_at=None,
    source_error=EVIL,
    gateway_error=EVIL,
    ledger_error=EVIL,
    generation=1,
    frozen=FreezeState(asked_by=EVIL, at=1.0),
    problems=[EVIL],
    models=[
        ModelState(
            name=EVIL,
            aliases=[AliasState(alias=EVIL, aspired=2, active=1, reason=EVIL)],
            versions=[],
        )
    ],
    work=[StepState(step="fetch", subject=[EVIL], reason=EVIL)],
    fetches=[
        FetchState(
            model=EVIL, version=1, comparing=False, started_at=1.0, arrived_bytes=1, total_bytes=2
        )
    ],
    store=StoreState(stored_bytes=1, coming_bytes=1, budget_bytes=None),
    webhooks=[WebhookState(name=EVIL, refused_at=1.0, refusal=EVIL)],
)


STATE_ANSWER = Response(STATE.model_dump_json(), media_type="application/json")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    remember(())


async def told(*arguments: str, said: Response = STATE_ANSWER) -> Result:
    """Run a command whose control plane passes on what strangers have called things."""

    async def answer(_: Request) -> Response:
        return said

    with (
        tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder,
        listening_at(Path(folder) / "operations.sock") as listener,
    ):
        app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
        async with serving(local_server(app), listener):
            return await asyncio.to_thread(run, folder, *arguments)


def acting(text: str) -> set[str]:
    return {one for one in ACTING if one in text}


async def test_names_and_reasons_are_escaped_in_tables_and_sentences() -> None:
    done = await told("status")
    assert done.exit_code == 0, done.output
    assert acting(done.output) == set()
    assert done.output.replace("\n", "").count(SHOWN) >= 10
    assert not [line for line in done.output.splitlines() if line.startswith("2026 forged")]


async def test_json_says_the_same_and_acts_on_no_terminal() -> None:
    done = await told("status", "--json")
    assert acting(done.stdout) == set()
    assert json.loads(done.stdout) == json.loads(STATE.model_dump_json())


async def test_errors_are_escaped() -> None:
    done = await told("freeze", said=problem(409, "refused", EVIL))
    assert done.exit_code == 1
    assert acting(done.output) == set()
    assert SHOWN in done.output
    assert len(done.stderr.splitlines()) == 1


async def test_an_error_does_not_repeat_what_the_command_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", OF_ENVIRONMENT)
    detail = f"a proxy was sent {TOKEN}, and {OF_ENVIRONMENT}"
    said = problem(403, "refused", detail)
    done = await told("--token", TOKEN, "freeze", said=said)
    assert done.exit_code == 1
    assert done.stderr == f"a proxy was sent {WITHHELD}, and {WITHHELD}\n"


def test_the_query_of_a_control_planes_url_is_not_repeated() -> None:
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}/?{TOKEN}"
    done = CliRunner().invoke(cli.app, ["--url", nowhere, "status"])
    assert done.exit_code == 3
    assert TOKEN not in done.output


async def test_an_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(2**20))
    said = Response(bomb, headers={"content-encoding": "gzip"}, media_type="application/json")
    done = await told("status", said=said)
    assert done.exit_code == 3
    assert "this command cannot read it" in done.stderr


async def test_an_answer_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MOST_ANSWER_BYTES", 1000)
    done = await told("status")
    assert done.exit_code == 3
    assert "more than 1000 bytes" in done.stderr


def test_what_the_caller_typed_is_escaped() -> None:
    done = CliRunner().invoke(cli.app, ["stamp", EVIL])
    assert done.exit_code == 2
    assert acting(done.output) == set()


def test_a_control_planes_url_with_a_password_is_refused_and_not_repeated() -> None:
    environ = {URL_VARIABLE: "http://ann:pa55word@node:8081"}
    done = CliRunner().invoke(cli.app, ["status"], env=environ)
    assert done.exit_code == 2
    assert f"{URL_VARIABLE} must be a URL without user and password" in done.stderr
    assert "REGISTRY_GATEWAY_OPERATIONS_TOKEN" in done.stderr
    assert "pa55word" not in done.output


ENDPOINTS = pytest.mark.parametrize(
    "variable", ["MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
)


@ENDPOINTS
def test_publishing_refuses_an_endpoint_with_a_password(variable: str, tmp_path: Path) -> None:
    arguments = ["publish", str(tmp_path), "s3://bucket/prefix/churn"]
    environ = {variable: "https://ann:pa55word@s3.example"}
    done = CliRunner().invoke(cli.app, arguments, env=environ)
    assert done.exit_code == 1
    assert f"{variable} must be a URL without user and password" in done.stderr
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr
    assert "pa55word" not in done.output


@ENDPOINTS
def test_the_control_plane_does_not_start_with_such_an_endpoint(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "https://ann:pa55word@s3.example")
    with pytest.raises(SourceError, match=f"^{variable} must be a URL without user") as refused:
        bootstrap.run(SyncSettings(node_dir=tmp_path / "node"), lambda: None)
    assert "pa55word" not in str(refused.value)
    assert not (tmp_path / "node").exists()
