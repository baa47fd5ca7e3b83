"""A canary in every credential, header and URL that the product takes, and every error provoked.

None of them may be in a log, an answer, a metric, what a command prints, or a file of the node's
folder. The neighbours repeat what they were sent, as careless servers and proxies do: registry,
storage and index have names that no server resolves, and a proxy that answers in their place.
"""

import asyncio
import base64
import json
import os
import re
import socket
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from registry_sync.operations.webhooks.authentication import RELOAD_HEADERS, sign
from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_body
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel, ScriptedModel
from tests.servers import Postgres, free_ports

ALIAS = "champion"
BUCKET = "inner-bucket"
REGISTRY, STORAGE, INDEX, LEDGER = (
    f"{word}01.invalid" for word in ("registry", "storage", "index", "ledger")
)
OF_A_MODEL, PRINTED_BY_A_MODEL = "of a model", "hunter2"
"""It is in the model's own code too."""
OWN_FILES = re.compile(r"node/artifacts/[^/]+/.")
"""A model's own code and files stay as they are."""


LIMIT_S = 600
"""Three lives of a control plane, and eight commands."""


def canary(word: str) -> str:
    """A value that nothing else can have, of characters that survive headers and URLs."""
    return f"canary-{word}-{uuid.uuid4().hex[:12]}"


CANARIES = {
    word: canary(word)
    for word in (
        "username", "password", "token", "key", "secret", "session", "ledger", "operations",
        "mlflow-webhook", "s3-webhook", "reload", "index", "proxy", "wrong-token",
        "wrong-signature", "authorization", "cookie", "api-key", "query", "body",
        "version", "location-user", "location-signature", "required",
    )
}  # fmt: skip
ALLOWED_TWICE = {"username"}  # a user's name is no secret, and must only not be beside its password
TOLD_TO_ITS_CALLER = {"version": re.compile(r"POST /models/")}
"""What an error names to the caller that asked for it, and to no other reader."""
BASIC = base64.b64encode(f"{CANARIES['username']}:{CANARIES['password']}".encode()).decode()
WAYS = ("forbidden", "forbidden, credential first", "failing", "failing", "broken")
"""How a neighbour answers, in turn; one that fails is asked twice in a row."""


class Repeating(ThreadingHTTPServer):
    """Serves no request, and repeats its head in what it answers; a proxy of every host too.

    ``heard`` is what it was sent, and in which of the `WAYS` it answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[str, str]] = []
        self._asked: dict[str, int] = {}

    def way(self, kind: str) -> str:
        """Return how the next request of a kind is answered."""
        asked = self._asked[kind] = self._asked.get(kind, -1) + 1
        return WAYS[asked % len(WAYS)]

    def ways(self, sent: str) -> set[str]:
        """Return the ways in which requests with this in their head were answered."""
        return {way for head, way in self.heard if sent in head}

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Repeating)
        host = self.headers.get("Host", "")
        # Its bare name has a form that no pattern knows.
        said = f"{host.partition(':')[0]} refused: {dict(self.headers)} {self.path}"
        is_storage = "x-amz-date" in self.headers
        way = self.server.way("storage" if is_storage else host)
        self.server.heard.append((said, way))
        if way != "forbidden":
            said = f"{self.headers.get('Authorization', '').rpartition(' ')[2]} {said}"
        body = _of_storage(said) if is_storage else _of_registry(said)
        status = 500 if way == "failing" else 403
        if way == "broken":
            status, body = 200, body[:-2]
        self.send_response(status)
        self.send_header("Content-Type", "application/xml" if is_storage else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_HEAD = do_GET  # noqa: N815 - the handler's own names

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def _of_registry(said: str) -> bytes:
    """A refusal as MLflow spells it, and as a control plane does."""
    mlflow = {"error_code": "PERMISSION_DENIED", "message": said}
    ours = {"title": "Refused", "status": 403, "detail": said, "code": "refused"}
    return json.dumps(mlflow | ours).encode()


def _of_storage(said: str) -> bytes:
    text = said.replace("&", "&amp;").replace("<", "&lt;")
    return f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>".encode()


@pytest.fixture(scope="module")
def repeating() -> Iterator[Repeating]:
    with Repeating() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def open_umask() -> Iterator[None]:
    """Start what is started in the block as somebody did who protects no file."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def control_settings(repeating: Repeating, operations_port: int) -> dict[str, str]:
    nobody = free_ports(1)[0]
    return {
        "REGISTRY_SYNC_OPERATIONS_PORT": str(operations_port),
        "REGISTRY_SYNC_OPERATIONS_TOKEN": CANARIES["operations"],
        "REGISTRY_SYNC_MLFLOW_WEBHOOK_SECRET": CANARIES["mlflow-webhook"],
        "REGISTRY_SYNC_S3_WEBHOOK_TOKEN": CANARIES["s3-webhook"],
        "REGISTRY_SYNC_RELOAD_SECRET": CANARIES["reload"],
        "REGISTRY_SYNC_DATABASE_URL": (
            f"postgresql+psycopg://node:{CANARIES['ledger']}@{LEDGER}:{nobody}/ledger"
        ),
        "REGISTRY_SYNC_UPLOAD_STABLE_S": "0",
        "MLFLOW_TRACKING_USERNAME": CANARIES["username"],
        "MLFLOW_TRACKING_PASSWORD": CANARIES["password"],
        "AWS_ACCESS_KEY_ID": CANARIES["key"],
        "AWS_SECRET_ACCESS_KEY": CANARIES["secret"],
        "AWS_SESSION_TOKEN": CANARIES["session"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": f"http://{STORAGE}:9000",
        "UV_DEFAULT_INDEX": f"http://uv:{CANARIES['index']}@{INDEX}/simple",
        "UV_HTTP_RETRIES": "0",
        "HTTP_PROXY": f"http://proxy:{CANARIES['proxy']}@127.0.0.1:{repeating.port}",
        "HTTPS_PROXY": f"http://proxy:{CANARIES['proxy']}@127.0.0.1:{nobody}",
        "NO_PROXY": "127.0.0.1",
        "ACCEPTANCE_RAISES": "registry_sync.reconcile.sweep:Sweep.run",
        "ACCEPTANCE_CONSTANTS": '{"module": "registry_sync.settings", "SWEEP_INTERVAL_S": 1}',
    }


class Shown:
    """Everything that anybody was shown, with where."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, where: str, text: str) -> str:
        self.texts.append((where, text))
        return text

    def answer(self, answer: httpx.Response) -> httpx.Response:
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.add(f"{answer.request.method} {answer.request.url.path}", f"{head}\n\n{answer.text}")
        return answer

    async def command(self, node: Node, *arguments: str) -> None:
        done = await asyncio.to_thread(node.command, *arguments)
        self.add("registry-gateway " + " ".join(arguments), done.stdout + done.stderr)

    def files(self, node: Node) -> None:
        """Take the files of the node's folder, and both logs beside it."""
        for path in sorted(node.folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.add(str(path.relative_to(node.folder)), path.read_bytes().decode("latin-1"))


def spellings(secret: str) -> set[str]:
    """A secret as it is, and in the forms that headers give it."""
    user = f"{CANARIES['username']}:{secret}"
    encoded = (base64.b64encode(one.encode()).decode().rstrip("=") for one in (secret, user))
    return {secret, *encoded}


def revealed(shown: Shown) -> list[str]:
    secrets = {word: one for word, one in CANARIES.items() if word not in ALLOWED_TWICE}
    secrets[OF_A_MODEL] = PRINTED_BY_A_MODEL
    return [
        f"{word} in {where}: …{text[max(0, text.index(form) - 150) : text.index(form) + 50]}…"
        for where, text in shown.texts
        for word, secret in secrets.items()
        for form in spellings(secret)
        if form in text and not _may_have(word, where)
    ]


def _may_have(word: str, where: str) -> bool:
    if word in (OF_A_MODEL, "required"):
        return OWN_FILES.match(where) is not None
    return word in TOLD_TO_ITS_CALLER and TOLD_TO_ITS_CALLER[word].match(where) is not None


# --- what goes wrong ------------------------------------------------------------------------------


async def refuse_callers(
    http: httpx.AsyncClient, node: Node, names: dict[str, str], shown: Shown
) -> str:
    """Ask for predictions in every way that is refused, with credentials that no route asks for.

    Return what is answered about models that do not serve.
    """
    name = names["served"]
    headers = {
        "Authorization": f"Bearer {CANARIES['authorization']}",
        "Cookie": f"session={CANARIES['cookie']}",
        "X-API-Key": CANARIES["api-key"],
        "Content-Type": "application/json",
    }
    bodies = [
        json.dumps(row_body(1)),
        CANARIES["body"],
        json.dumps({"dataframe_split": {"columns": ["x1", "x2"], "data": [[CANARIES["body"], 1]]}}),
        json.dumps({"instances": [{CANARIES["body"]: 1}]}),
    ]
    routes = [f"/models/{name}/versions/{v}/predict" for v in ("1", "@champion", "9", "@x", "1e9")]
    for route in [*routes, "/models/none/predict", f"/models/{name}/predict", "/nowhere"]:
        for body in bodies:
            url = f"{node.url}{route}?token={CANARIES['query']}"
            shown.answer(await http.post(url, content=body, headers=headers))
    packed = headers | {"Content-Encoding": "gzip", "X-Request-Timeout": CANARIES["api-key"]}
    for changed in (packed, headers | {"Content-Type": CANARIES["api-key"]}):
        url = f"{node.url}{routes[0]}"
        shown.answer(await http.post(url, content=bodies[0], headers=changed))
    line, broken = f"GET /?token={CANARIES['query']} HTTP/1.1", f"Cookie {CANARIES['cookie']}"
    head = f"{line}\r\nHost: x\r\n{broken}\r\n\r\n"
    shown.add("no HTTP", await asyncio.to_thread(raw, node.port, head))
    for version in (CANARIES["version"], f"@{CANARIES['version']}", f"{CANARIES['version']}%2F"):
        asked = headers | {"X-Model-Version": version}
        url = f"{node.url}/models/{name}/predict"
        shown.answer(await http.post(url, content=bodies[0], headers=asked))
    refused = headers | {"X-Request-Timeout": "2"}
    answers = [
        shown.answer(
            await http.post(
                f"{node.url}/models/{one}/versions/{selector}/predict",
                content=bodies[0],
                headers=refused,
            )
        )
        for word, one in names.items()
        if word != "served"
        for selector in ("1", f"@{ALIAS}")
    ]
    assert not any(answer.is_success for answer in answers)
    return "".join(answer.text for answer in answers)


def raw(port: int, head: str) -> str:
    """Send what is no request; return what is answered."""
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(head.encode())
        answer = b""
        with suppress(OSError):
            while piece := line.recv(65536):
                answer += piece
    return answer.decode("latin-1")


async def refuse_senders(http: httpx.AsyncClient, url: str, shown: Shown) -> None:
    """Send webhooks that are not authentic, and authentic ones that cannot be read."""
    wrong = f"v1,{CANARIES['wrong-signature']}"
    names = RELOAD_HEADERS
    delivery, now = uuid.uuid4().hex, str(int(time.time()))
    signature = sign(CANARIES["reload"].encode(), delivery.encode(), now.encode(), b"{broken")
    signed = {names.delivery_id: delivery, names.timestamp: now}
    tries: list[tuple[str, dict[str, str]]] = [
        ("mlflow", {"X-MLflow-Signature": wrong, "X-MLflow-Delivery-Id": "1"}),
        ("s3", {"Authorization": f"Bearer {CANARIES['wrong-token']}"}),
        ("reload", signed | {names.signature: wrong}),
        ("reload", signed | {names.signature: signature.decode()}),
        ("none", {"Authorization": f"Bearer {CANARIES['wrong-token']}"}),
    ]
    for name, headers in tries:
        target = f"{url}/webhooks/{name}?token={CANARIES['query']}"
        shown.answer(await http.post(target, content=b"{broken", headers=headers))


async def refuse_operators(http: httpx.AsyncClient, url: str, name: str, shown: Shown) -> None:
    """Ask for what operators are refused: without the token, and with it for nonsense."""
    right = {"Authorization": f"Bearer {CANARIES['operations']}"}
    wrong = {"Authorization": f"Bearer {CANARIES['wrong-token']}"}
    query = {"token": CANARIES["query"]}
    for route in ("/state", "/metrics", "/history"):
        shown.answer(await http.get(f"{url}{route}", headers=wrong, params=query))
        shown.answer(await http.get(f"{url}{route}", headers=right, params=query))
    bodies: list[Any] = [{}, {"model": name}, {"model": "none", "alias": ALIAS, "version": 10**4}]
    for route in ("/rollback", "/pin", "/unpin", "/sync", "/quarantine/retry", "/retry"):
        for body in bodies[: 1 if route == "/sync" else 3]:
            shown.answer(await http.post(f"{url}{route}", headers=right, json=body))
    with suppress(httpx.HTTPError):
        shown.answer(await http.post(f"{url}/freeze", headers=right, content=b"{broken"))


async def pages(http: httpx.AsyncClient, node: Node, names: list[str], shown: Shown) -> str:
    """Read everything that the gateway shows to anybody; return it."""
    routes = ["/models", "/metrics", "/health/ready", "/openapi.json"]
    for name in names:
        routes += [f"/models/{name}", f"/models/{name}/versions/1"]
    answers = [shown.answer(await http.get(node.url + route)) for route in routes]
    return "".join(answer.text for answer in answers)


def public_names_of_the_inside(text: str, node: Node, ports: list[int]) -> list[str]:
    hosts = (REGISTRY, STORAGE, INDEX, LEDGER)
    inside = [BUCKET, str(node.node_dir), "127.0.0.1", *(f":{port}" for port in ports)]
    inside += [host.partition(".")[0] for host in hosts]
    return [
        f"{one}: …{text[max(0, text.index(one) - 150) : text.index(one) + 50]}…"
        for one in inside
        if one in text
    ]


# --- the test -------------------------------------------------------------------------------------


@pytest.mark.timeout(LIMIT_S)
async def test_a_canary_in_every_credential_is_shown_nowhere(
    make_node: NodeMaker,
    registry: Registry,
    repeating: Repeating,
    postgresql_server: Postgres,
    mlflow_root: Path,
) -> None:
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    settings = control_settings(repeating, port)
    raising = {
        "ACCEPTANCE_RAISES": "gateway.serving.supervision:Supervisor.remember_hot",
        "GATEWAY_PROBE_INTERVAL_S": "0.5",
        "GATEWAY_PORT_TOKEN": CANARIES["operations"],
    }
    node = make_node(gateway=raising, control=settings)
    shown = Shown()
    names = published(registry, mlflow_root)
    inaccessible = {"REGISTRY_SYNC_TRACKING_URI": f"http://{REGISTRY}:5000"}
    by_token = {
        "MLFLOW_TRACKING_USERNAME": "",
        "MLFLOW_TRACKING_PASSWORD": "",
        "MLFLOW_TRACKING_TOKEN": CANARIES["token"],
    }
    with open_umask():
        node.start_gateway()
    async with httpx.AsyncClient(timeout=60) as http:
        # A registry that repeats the credentials that it was shown, and no ledger.
        public = ""
        for sent, credentials in ((BASIC, {}), (CANARIES["token"], by_token)):
            with open_umask():
                node.start_control(inaccessible | credentials)
            public += await failing(http, node, url, repeating, sent, shown)
            node.stop_control()
        # One that works, with a storage, models and an index that do not.
        ledger = make_url(postgresql_server.empty_database()).set(password=CANARIES["ledger"])
        database = {"REGISTRY_SYNC_DATABASE_URL": ledger.render_as_string(hide_password=False)}
        with open_umask():
            node.start_control(by_token | database)
        await node.active(http, names["served"], ALIAS, 1)
        await reasons(http, url, names, shown)
        public += await refuse_callers(http, node, names, shown)
        await refuse_senders(http, url, shown)
        await refuse_operators(http, url, names["served"], shown)
        public += await pages(http, node, list(names.values()), shown)
    over_tcp = ["--url", url, "--token", CANARIES["operations"]]
    repeated = ["--url", repeating.url, "--token", CANARIES["operations"]]
    for arguments in (
        ["status", "--json"],
        ["explain", names["stored"]],
        [*over_tcp, "history"],
        ["--url", url, "--token", CANARIES["wrong-token"], "status"],
        [*repeated, "status"],
        [*repeated, "history"],
    ):
        await shown.command(node, *arguments)
    for running in (node.gateway, node.control):
        assert running is not None
    open_to_others = [
        str(path)
        for path in (node.node_dir, *node.node_dir.rglob("*"))
        if not path.is_symlink() and path.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    node.close()
    shown.files(node)

    assert revealed(shown) == []
    assert open_to_others == []
    assert public_names_of_the_inside(public, node, [repeating.port, port]) == []
    assert_provoked(shown, repeating)


def published(registry: Registry, mlflow_root: Path) -> dict[str, str]:
    """Register a version that serves, and others that cannot be loaded, fetched or built for."""
    user, signature = CANARIES["location-user"], CANARIES["location-signature"]
    locations = {
        "stored": f"s3://{BUCKET}/model",
        "signed": f"s3://{BUCKET}/model?X-Amz-Signature={signature}",
        "named": f"s3://ann:{user}@{BUCKET}/model",
    }
    words = ("served", "broken", "owned", "indexed", *locations)
    names = {word: registry.name(word) for word in words}
    registry.publish(names["served"], LinearModel(1.0))
    registry.publish(names["broken"], ScriptedModel(fail_load=True))
    registry.publish(names["indexed"], LinearModel(2.0))
    require(registry.proxied_files(names["indexed"], 1, mlflow_root) / "requirements.txt")
    for word in ("owned", *locations):
        registry.client.create_registered_model(names[word])
    registry.publish_as(names["owned"], names["served"], 1)
    for word, location in locations.items():
        registry.client.create_model_version(names[word], location)
    for word in ("owned", "indexed"):
        registry.client.set_registered_model_tag(names[word], "gateway.environment", "own")
    for name in names.values():
        registry.point(name, ALIAS, 1)
    return names


def require(file: Path) -> None:
    """Let a model require what an index with a password has, and a wheel of such a server."""
    server = f"https://ann:{CANARIES['required']}@{INDEX}"
    lines = (f"--extra-index-url {server}/simple", f"features @ {server}/features-1-py3-none.whl")
    file.write_text(file.read_text() + "\n" + "\n".join(lines) + "\n")


async def failing(
    http: httpx.AsyncClient, node: Node, url: str, repeating: Repeating, sent: str, shown: Shown
) -> str:
    """Wait until the listing has failed in every way, and been repeated to operators.

    Return what everybody was shown meanwhile.
    """
    right = {"Authorization": f"Bearer {CANARIES['operations']}"}
    public: dict[str, str] = {}

    async def look() -> bool:
        ways = repeating.ways(sent)
        try:
            state = await http.get(f"{url}/state", headers=right)
        except httpx.TransportError:
            return False
        told = shown.answer(state).json()["source_error"] or ""
        if told not in public:
            public[told] = await pages(http, node, [], shown)
        return bool(told) and ways == set(WAYS)

    await eventually(look, "the registry refuses to be listed, in every way", patience_s=120)
    await shown.command(node, "status")
    return "".join(public.values()) + await pages(http, node, [], shown)


async def reasons(http: httpx.AsyncClient, url: str, names: dict[str, str], shown: Shown) -> None:
    """Wait until operators are told why each of the others does not serve."""
    right = {"Authorization": f"Bearer {CANARIES['operations']}"}

    async def look() -> bool:
        state = shown.answer(await http.get(f"{url}/state", headers=right)).json()
        why = {
            model["name"]: [
                alias["reason"] for alias in model["aliases"] if alias["alias"] == ALIAS
            ]
            for model in state["models"]
        }
        return all(any(why.get(name, [])) for word, name in names.items() if word != "served")

    await eventually(look, "every model says why it does not serve", patience_s=120)


def assert_provoked(shown: Shown, repeating: Repeating) -> None:
    """Nothing was shown because there was nothing to show? Everything was sent, and told."""
    heard = "\n".join(head for head, _ in repeating.heard)
    pairs = (f"proxy:{CANARIES['proxy']}", f"uv:{CANARIES['index']}")
    encoded = (base64.b64encode(one.encode()).decode() for one in pairs)
    signature = CANARIES["location-signature"]
    credentials = [CANARIES[one] for one in ("token", "key", "session", "operations")]
    for sent in (BASIC, *encoded, *credentials, signature, REGISTRY, STORAGE, BUCKET):
        assert sent in heard, sent
    assert repeating.ways(BASIC) == repeating.ways(CANARIES["token"]) == set(WAYS)
    texts = "\n".join(text for _, text in shown.texts)
    for told in (
        "[redacted]", "supervision.failed", "sweep.failed", "listing.failed", "webhook.refused",
        "it was told to raise", "AccessDenied", "PERMISSION_DENIED", "operators' token",
        REGISTRY, STORAGE, INDEX, LEDGER,
    ):  # fmt: skip
        assert told in texts, told
