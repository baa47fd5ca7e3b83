"""Keeps the proofs of artifacts, so that later workers need not make them again.

Proofs are in memory, and one per file in the node's folder ``proofs/``. They are a cache: a proof
that is lost, altered, too large or of another format is made again, and a full disk prevents
nothing. A file's name comes from the ordered artifact, never from a worker. The next worker checks
whether the libraries are still the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import orjson
import structlog
from cachetools import LRUCache

from gateway.system.files import (
    AlteredError,
    DamagedFiles,
    is_sealed,
    remove_file,
    replace_file,
    seal,
    unseal,
)
from gateway.worker.loading.proofs import proof as proofs
from gateway.worker.loading.proofs.proof import Proof
from gateway.worker.process.guarded_read import DamagedFileError, read_file
from gateway.worker.protocol.messages import Load

MOST_KEPT = 16_384
"""Proofs in memory, and files."""
MAX_FILE_BYTES = 32 * 1024
"""More than twice what the bounds of a proof allow."""
_RETRY_S = 10.0
_IN_MEMORY = "what was proved counts until this gateway ends, and is written when there is room"
_log = structlog.get_logger("gateway.serving.kept_proofs")


class KeptProofs:
    """Proofs by artifact and environment. Event loop only.

    ``damaged`` receives the files that the disk refuses.
    """

    def __init__(self, folder: Path, damaged: DamagedFiles | None = None) -> None:
        self._folder = folder
        self._damaged = damaged or DamagedFiles()
        self._known: LRUCache[str, Proof] = LRUCache(MOST_KEPT)
        self._files: OrderedDict[str, None] | None = None  # by use, the last one last
        self._unwritten: dict[str, bytes] = {}
        self._writing: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    async def of(self, order: Load) -> Proof | None:
        """Return the proof of an ordered artifact, or None."""
        name = name_of(order)
        if name not in self._known:
            proof = await asyncio.to_thread(_read, self._folder / name, _subject(order))
            if proof is not None:
                self._known.setdefault(name, proof)  # a worker may have proved more meanwhile
        if self._files is not None and name in self._files:
            self._files.move_to_end(name)
        return self._known.get(name)

    def keep(self, order: Load, proof: Proof) -> None:
        """Merge a worker's proof into the known one of its artifact."""
        name = name_of(order)
        known = self._known.get(name)
        proof = proof if known is None else proofs.merged(known, proof)
        if known == proof:
            return
        self._known[name] = proof
        self._unwritten[name] = _bytes_of(order, proof)
        self._start_writing()

    def _start_writing(self) -> None:
        self._cancel_retry()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Wait until every proof is written, as far as the disk allows."""
        if self._writing is not None:
            await self._writing
        self._cancel_retry()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _write(self) -> None:
        """Write the unwritten proofs one by one; retry later if the disk refuses."""
        while self._unwritten:
            name, content = next(iter(self._unwritten.items()))
            try:
                await asyncio.to_thread(_replace, self._folder / name, content)
                await self._make_room(name)
            except OSError as error:
                self._damaged.not_written(self._folder, error, instead=_IN_MEMORY)
                self._retry_later()
                return
            except Exception as error:  # noqa: BLE001  # no thread can be started, no memory is left
                _log.warning("proof.write_failed", reason=type(error).__name__)
                self._retry_later()
                return
            if self._unwritten.get(name) is content:
                del self._unwritten[name]
            self._damaged.written(self._folder)

    async def _make_room(self, written: str) -> None:
        """Remove the least recently used files beyond the bound; list the folder once."""
        if self._files is None:
            self._files = OrderedDict.fromkeys(await asyncio.to_thread(_by_use, self._folder))
        self._files.pop(written, None)
        self._files[written] = None
        while len(self._files) > MOST_KEPT:
            unused = next(iter(self._files))
            await asyncio.to_thread(remove_file, self._folder / unused)
            del self._files[unused]

    def _retry_later(self) -> None:
        while len(self._unwritten) > MOST_KEPT:
            del self._unwritten[next(iter(self._unwritten))]
        self._cancel_retry()
        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(_RETRY_S, self._start_writing)


def name_of(order: Load) -> str:
    """Return the file name of an artifact's proof in the ordered environment."""
    parts = (str(proofs.FORMAT), *_subject(order).values())
    return f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.json"


def _subject(order: Load) -> dict[str, str]:
    """Return the subject of a proof. The file has it too, since it may have been renamed."""
    device = "gpu" if order.cuda_devices is not None else "cpu"
    return {"artifact": order.digest, "environment": order.environment, "device": device}


def _bytes_of(order: Load, proof: Proof) -> bytes:
    document = {**_subject(order), "proof": proof.as_header()}
    return seal(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _read(path: Path, subject: Mapping[str, str]) -> Proof | None:
    """Read a file and mark it as used; return None if it has no proof of ``subject``. Blocking."""
    try:
        content = read_file(path, MAX_FILE_BYTES)
        document = unseal(content) if is_sealed(content) else {}
    except (OSError, DamagedFileError, AlteredError):
        return None
    proof = proofs.parse(document.pop("proof", None))
    if document != subject:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return proof


def _replace(path: Path, data: bytes) -> None:
    """Write a file atomically. Blocking."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, data)


def _by_use(folder: Path) -> list[str]:
    """Return the files of a folder by use, the last one last. Blocking."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append((path.lstat().st_mtime, path.name))
    return [name for _, name in sorted(found)]
