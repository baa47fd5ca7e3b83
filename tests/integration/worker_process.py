"""A real worker on the other end of a socket pair, forked from a real forkserver."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gateway.worker import entry
from gateway.worker.protocol.frames import Frame, FrameReader, pack
from gateway.worker.protocol.messages import (
    KIND_OF,
    Alive,
    Failed,
    Hello,
    Kind,
    Load,
    Loaded,
    LoadFailed,
    Message,
    Predict,
    Probe,
    Proved,
    Proving,
    Reply,
    Stop,
    Warming,
    decode_header,
    encode_header,
)
from registry_sync.artifacts.description import describe
from registry_sync.artifacts.manifest import FetchedArtifact, Manifest
from tests.models.catalogue import BuildableModel

PATIENCE_S = 120.0
_TYPES: dict[int, type[Any]] = {
    kind: message for message, kind in KIND_OF.items() if kind >= Kind.HELLO
}


@dataclass
class RunningWorker:
    """The gateway's side of one worker, blocking."""

    pid: int
    channel: socket.socket
    lifeline: Any
    hello: Hello | None = None
    _reader: FrameReader = field(default_factory=FrameReader)
    _frames: list[Frame] = field(default_factory=list)
    _next_id: int = 1
    proofs: list[Proving | Proved] = field(default_factory=list)

    def send(self, message: Message, body: bytes = b"", *, id_: int | None = None) -> int:
        if id_ is None:
            id_, self._next_id = self._next_id, self._next_id + 1
        self.channel.sendall(
            b"".join(pack(KIND_OF[type(message)], id_, encode_header(message), body))
        )
        return id_

    def send_together(self, requests: list[bytes], **header: Any) -> list[int]:
        """Send requests in one write, so that they queue while the first is taken."""
        ids, data = [], b""
        for body in requests:
            ids.append(self._next_id)
            data += b"".join(
                pack(Kind.PREDICT, self._next_id, encode_header(predict_header(**header)), body)
            )
            self._next_id += 1
        self.channel.sendall(data)
        return ids

    def receive(self) -> tuple[int, Any, bytes]:
        while not self._frames:
            data = self.channel.recv(1 << 16)
            if not data:
                raise EOFError
            self._frames += self._reader.feed(data)
        frame = self._frames.pop(0)
        message = decode_header(_TYPES[frame.kind], frame.header)
        if isinstance(message, Proving | Proved):  # it comes when nothing else does
            self.proofs.append(message)
            return self.receive()
        return frame.id, message, frame.body

    def report(self) -> Any:
        """How the load ended, after it was said that the warm-up began, where it came so far."""
        message = self.receive()[1]
        return self.receive()[1] if isinstance(message, Warming) else message

    def predict(self, body: Any, **header: Any) -> tuple[Reply | Failed, Any]:
        """Send one body, JSON unless it is bytes; return the header and the decoded answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        id_ = self.send(predict_header(**header), raw)
        answered, message, answer = self.receive()
        assert answered == id_
        return message, json.loads(answer) if answer else None

    def probe(self) -> Alive:
        self.send(Probe())
        message = self.receive()[1]
        assert isinstance(message, Alive)
        return message

    def stop(self) -> None:
        self.send(Stop())

    def wait_until_ended(self) -> None:
        wait_until_ended(self.pid)


def predict_header(**changes: Any) -> Predict:
    values: dict[str, Any] = {
        "protocol": "predict",
        "content_type": "application/json",
        "deadline": time.monotonic() + PATIENCE_S,
        "request_id": "test",
        **changes,
    }
    return Predict(**values)


def wait_until_ended(pid: int) -> None:
    """Wait until ``pid`` is gone, or only waits to be reaped by a parent that is not ours."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.02)
    raise TimeoutError(f"process {pid} still runs")


def store(model: BuildableModel, folder: Path) -> Load:
    """Save ``model`` as the artifact store would keep it; return the order to load it."""
    return order_of(model.save(folder / "artifact"), folder)


def order_of(artifact: Path, folder: Path) -> Load:
    """Return the order to load a saved model, whose manifest is written to ``folder``."""
    files = [path for path in artifact.rglob("*") if path.is_file()]
    manifest = Manifest.of(
        {
            str(path.relative_to(artifact)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }
    )
    (folder / "manifest").write_text(manifest.text())
    fetched = FetchedArtifact(artifact, manifest, sum(path.stat().st_size for path in files), None)
    return Load(
        model="a model",
        version=7,
        digest=manifest.digest,
        artifact=str(artifact),
        manifest=str(folder / "manifest"),
        description=describe(fetched),
    )


@contextlib.contextmanager
def started() -> Iterator[RunningWorker]:
    """A worker that has said HELLO. It is ended, whatever happens."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gateway.worker.process.preload"])
    end, lifeline = context.Pipe(duplex=False)
    process = context.Process(target=entry.run, args=(theirs, end))
    process.start()
    theirs.close()
    end.close()
    worker = RunningWorker(int(process.pid or 0), ours, lifeline)
    try:
        hello = worker.receive()[1]
        assert isinstance(hello, Hello)
        worker.hello = hello
        yield worker
    finally:
        lifeline.close()
        ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        process.join(PATIENCE_S)


@contextlib.contextmanager
def serving(order: Load) -> Iterator[tuple[RunningWorker, Loaded]]:
    """A worker that has loaded ``order``."""
    with started() as worker:
        worker.send(order, id_=0)
        report = worker.report()
        assert isinstance(report, Loaded), report
        yield worker, report


def refused(order: Load) -> LoadFailed:
    """Have a worker refuse ``order``; return why. It has ended by itself."""
    with started() as worker:
        worker.send(order, id_=0)
        report = worker.report()
        assert isinstance(report, LoadFailed), report
        worker.wait_until_ended()
        return report


def stop_forkserver() -> None:
    """End the forkserver of this process; the next worker starts another."""
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]  # no stub says it
