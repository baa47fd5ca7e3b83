"""What a gateway starts from with the registry and the control plane down.

The route table (where each alias points, holds, generation) is on disk before an activation is
acknowledged; see `gateway.table_generations`. Two more files only save time: ``catalogue.json``
(what the control plane published last, and publishes again) and ``hot.json`` (which versions had a
worker, the most used first). Of these, one that is damaged or of a newer format is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.atomic_files import replace
from gateway.control_contract import CONTRACT_VERSION, Catalogue, DamagedFile
from gateway.damaged_files import DamagedFiles
from gateway.errors import TableFileError
from gateway.room import ReplicaKey
from gateway.routing import RouteTable
from gateway.table_generations import FORMAT_VERSION, TableBody, TableGenerations
from gateway.worker.guarded_read import DamagedFileError, read

B = TypeVar("B", bound=BaseModel)
_MOST_CATALOGUE_BYTES = 256 * 1024 * 1024
_MOST_HOT_BYTES = 16 * 1024 * 1024
_log = structlog.get_logger("gateway.table_file")


class _Hot(BaseModel):
    model: str
    version: int
    digest: str


class _HotBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format_version: int
    versions: list[_Hot]


class _Versioned(BaseModel):
    """Which format a file of any release says that it has."""

    model_config = ConfigDict(extra="ignore")

    contract_version: int = 0
    format_version: int = 0


class TableFile:
    """Reads and writes what a node starts from. Blocking: call from a thread."""

    def __init__(self, node_dir: Path, damaged: DamagedFiles | None = None) -> None:
        """Store where the files are, and who is told of damage."""
        self._damaged = damaged or DamagedFiles()
        self._table = TableGenerations(node_dir, self._damaged)
        self._catalogue = node_dir / "catalogue.json"
        self._hot = node_dir / "hot.json"

    def damaged(self) -> list[DamagedFile]:
        """Return the files of the node that could not be used, since the start."""
        return self._damaged.all()

    def load(self, default_alias: str) -> RouteTable:
        """Return the newest table that is whole; an empty one if there is none.

        Raises:
            TableFileError: A newer release wrote it.
        """
        table = RouteTable(default_alias=default_alias)
        if (body := self._table.load()) is not None:
            table = RouteTable(
                default_alias=default_alias,
                generation=body.generation,
                active={(entry.model, entry.alias): entry for entry in body.active},
                holds=tuple(body.holds),
            )
        catalogue = self._load_catalogue()
        return table if catalogue is None else table.with_catalogue(catalogue)

    def save_table(self, table: RouteTable) -> None:
        """Write generation, active aliases and holds; they are on disk when this returns.

        Raises:
            TableFileError: The disk refused. The table before is there still.
        """
        self._table.save(
            TableBody(
                generation=table.generation,
                active=list(table.active.values()),
                holds=list(table.holds),
            )
        )

    def save_catalogue(self, document: bytes) -> None:
        """Write the document of a catalogue, which was found valid, as it came.

        Raises:
            TableFileError: The disk refused, or it is too long to be read again.
        """
        if len(document) > _MOST_CATALOGUE_BYTES:
            raise TableFileError(f"{self._catalogue} cannot have more than {_MOST_CATALOGUE_BYTES}")
        _replace(self._catalogue, document)

    def load_hot(self) -> list[ReplicaKey]:
        """Return what had a worker last time, the most used first; nothing if that is unknown."""
        instead = "versions are loaded when they are called"
        body = self._load(self._hot, _HotBody, _MOST_HOT_BYTES, instead)
        if body is None or _is_newer(self._hot, body.format_version, FORMAT_VERSION):
            return []
        return [ReplicaKey(one.model, one.version, one.digest) for one in body.versions]

    def save_hot(self, keys: Sequence[ReplicaKey]) -> None:
        """Write which versions have a worker, the most used first.

        Raises:
            TableFileError: The disk refused.
        """
        versions = [_Hot(model=k.model, version=k.version, digest=k.digest) for k in keys]
        body = _HotBody(format_version=FORMAT_VERSION, versions=versions)
        _replace(self._hot, body.model_dump_json(indent=1).encode())

    def _load_catalogue(self) -> Catalogue | None:
        """Return the last catalogue; without one the active aliases are served nevertheless."""
        instead = "active aliases are served, and the control plane publishes what else there is"
        found = self._load(self._catalogue, Catalogue, _MOST_CATALOGUE_BYTES, instead)
        if found and _is_newer(self._catalogue, found.contract_version, CONTRACT_VERSION):
            return None
        return found

    def _load(self, path: Path, kind: type[B], most_bytes: int, instead: str) -> B | None:
        """Return what a file holds, or None if it is not there or cannot be used."""
        try:
            content = read(path, most_bytes)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            self._damaged.found(path, str(error), instead=instead)
            return None
        except OSError as error:
            self._damaged.found(path, f"cannot be read: {error.strerror}", instead=instead)
            return None
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            if not _says_newer(path, content):
                reason = f"is damaged ({error.error_count()} errors)" if content else "is empty"
                self._damaged.found(path, reason, instead=instead)
            return None


def _says_newer(path: Path, content: bytes) -> bool:
    """Whether a file that cannot be understood says that a newer release wrote it."""
    try:
        found = _Versioned.model_validate_json(content)
    except ValidationError:
        return False
    contract = _is_newer(path, found.contract_version, CONTRACT_VERSION)
    return contract or _is_newer(path, found.format_version, FORMAT_VERSION)


def _is_newer(path: Path, version: int, known: int) -> bool:
    """Whether a newer release wrote a file that saves time only: it is left out, and left there."""
    if version > known:
        _log.warning("file.ignored", file=str(path), format=version, known=known)
    return version > known


def _replace(path: Path, content: bytes) -> None:
    try:
        replace(path, content)
    except OSError as error:
        raise TableFileError(f"{path} cannot be written: {error}") from error
