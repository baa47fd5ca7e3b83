"""The route table on disk: a gateway starts with the registry and the control plane down.

Three files, all replaced atomically: ``table.json`` (small: where each alias points, holds,
generation), fsynced before an activation is acknowledged; ``catalogue.json`` (what the control
plane published last); ``hot.json`` (which versions had a worker, the most used first). A file of a
newer format is refused; a damaged catalogue is only reported, because the control plane publishes
it again; a damaged table is refused, since nobody else has it whole; a hot list is only a hint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.control_contract import CONTRACT_VERSION, ActiveAlias, AliasHold, Catalogue
from gateway.errors import TableFileError
from gateway.room import ReplicaKey
from gateway.routing import RouteTable

FORMAT_VERSION = 1
_log = structlog.get_logger("gateway.table_file")


class _TableBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format_version: int
    generation: int
    active: list[ActiveAlias]
    holds: list[AliasHold] = []


class _Hot(BaseModel):
    model: str
    version: int
    digest: str


class _HotBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format_version: int
    versions: list[_Hot]


class TableFile:
    """Reads and writes both files of a node. Blocking: call from a thread."""

    def __init__(self, node_dir: Path) -> None:
        """Store where the files are."""
        self._table = node_dir / "table.json"
        self._catalogue = node_dir / "catalogue.json"
        self._hot = node_dir / "hot.json"

    def load(self, default_alias: str) -> RouteTable:
        """Return the table that was written last; an empty one if there is none.

        Raises:
            TableFileError: A file is there, and cannot be used.
        """
        table = RouteTable(default_alias=default_alias)
        if (text := _read(self._table)) is not None:
            body = self._parse_table(text)
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
            TableFileError: The disk refused.
        """
        body = _TableBody(
            format_version=FORMAT_VERSION,
            generation=table.generation,
            active=list(table.active.values()),
            holds=list(table.holds),
        )
        _replace(self._table, body.model_dump_json(indent=1).encode())

    def save_catalogue(self, document: bytes) -> None:
        """Write the document of a catalogue, which was found valid, as it came.

        Raises:
            TableFileError: The disk refused.
        """
        _replace(self._catalogue, document)

    def load_hot(self) -> list[ReplicaKey]:
        """Return what had a worker last time, the most used first; nothing if that is unknown.

        It is a hint: what cannot be read is as good as none.
        """
        try:
            text = _read(self._hot)
            body = _HotBody.model_validate_json(text) if text is not None else None
        except (TableFileError, ValidationError) as error:
            _log.warning("hot.unreadable", reason=type(error).__name__)
            return []
        if body is None or body.format_version > FORMAT_VERSION:
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

    def _parse_table(self, text: str) -> _TableBody:
        _refuse_newer(self._table, text, "format_version", FORMAT_VERSION)
        try:
            return _TableBody.model_validate_json(text)
        except ValidationError as error:
            raise TableFileError(
                f"{self._table} is damaged ({error.error_count()} errors): remove it, and the "
                "control plane rebuilds it from its ledger"
            ) from error

    def _load_catalogue(self) -> Catalogue | None:
        """Return the last catalogue; without one the active aliases are served nevertheless.

        The control plane publishes it again as soon as it is there.
        """
        try:
            text = _read(self._catalogue)
        except TableFileError as error:
            _log.warning("catalogue.unreadable", reason=str(error))
            return None
        if text is None:
            return None
        _refuse_newer(self._catalogue, text, "contract_version", CONTRACT_VERSION)
        try:
            return Catalogue.model_validate_json(text)
        except ValidationError as error:
            reason = f"{self._catalogue} is damaged ({error.error_count()} errors)"
            _log.warning("catalogue.unreadable", reason=reason)
            return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise TableFileError(f"{path} cannot be read: {error}") from error


def _refuse_newer(path: Path, text: str, key: str, known: int) -> None:
    try:
        version = json.loads(text).get(key, known)
    except (ValueError, AttributeError):
        return  # not even JSON: the parser says so
    if isinstance(version, int) and version > known:
        raise TableFileError(
            f"{path} has format {version}, this gateway knows {known}: "
            "it was written by a newer version; start that one"
        )


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old or the new one, whole."""
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise TableFileError(f"{path} cannot be written: {error}") from error
