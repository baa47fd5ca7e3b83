"""The files from which a gateway starts while registry and control plane are down.

The route table (aliases, holds, generation) is on disk before an activation is acknowledged: as a
whole (`table_generations`), and its later changes beside it (`table_changes`). Once the changes are
as long as the whole, it is written anew.

Two more files only save time: ``catalogue.json``, the last catalogue, with later changes of models
in ``catalogue.changes``; and ``hot.json``, the resident versions, the most used first. If one is
damaged or of a newer format, it is ignored.

A disk that refuses to write prevents activations only. Everything else counts, and is written as
soon as there is room.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.contract import (
    CONTRACT_VERSION,
    AliasBody,
    AliasRef,
    ArtifactBody,
    ArtifactRef,
    Catalogue,
    DamagedFile,
    ModelChange,
    RefusedDigest,
)
from gateway.errors import TableFileError
from gateway.routing.route_table import RouteTable
from gateway.routing.table_changes import TableChange, TableChanges
from gateway.routing.table_generations import TableBody, TableGenerations
from gateway.system.files import ChangeLog, DamagedFiles, replace_file, size_bytes
from gateway.worker.process.guarded_read import DamagedFileError, read_file

B = TypeVar("B", bound=BaseModel)
_MOST_CATALOGUE_BYTES = 256 * 1024 * 1024
_MOST_HOT_BYTES = 16 * 1024 * 1024
_HOT_FORMAT = 1
_LEAST_TABLE_CHANGES_BYTES = 64 * 1024
_LEAST_CATALOGUE_CHANGES_BYTES = 1024 * 1024
"""Shorter changes never cause a whole file to be written."""
_WITHOUT_CHANGES = "the catalogue before it counts until the control plane publishes it anew"
_WITHOUT_LINES = "its other lines count until the control plane publishes the catalogue anew"
_UNTIL_WRITTEN = "what it holds counts all the same, and it is written when there is room"
_BESIDE = "what has changed since lies beside it, in table.changes"
_REFUSES = "activations are refused until it can be"
_log = structlog.get_logger("gateway.routing.table_file")


class _HotBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format_version: int
    versions: list[ArtifactBody]


class _Versioned(BaseModel):
    """The format of a file of any release."""

    model_config = ConfigDict(extra="ignore")

    contract_version: int = 0
    format_version: int = 0


class TableFile:
    """Reads and writes these files; ``damaged`` receives damage. Blocking: call from any thread."""

    def __init__(self, node_dir: Path, damaged: DamagedFiles | None = None) -> None:
        self._damaged = damaged or DamagedFiles()
        self._table = TableGenerations(node_dir, self._damaged)
        self._table_path = node_dir / "table.json"
        self._changes = TableChanges(node_dir, self._damaged)
        self._changed = 0
        self._written: tuple[int, int] | None = None
        self._catalogue = node_dir / "catalogue.json"
        self._models = ChangeLog(node_dir / "catalogue.changes", _MOST_CATALOGUE_BYTES)
        self._refused_digests: tuple[RefusedDigest, ...] | None = None
        self._hot = node_dir / "hot.json"
        self._writing = threading.Lock()
        self._due: dict[Path, Callable[[], None]] = {}
        self._unwritten: dict[AliasRef, None] = {}
        self._unwritten_models: list[bytes] = []

    def damaged(self) -> list[DamagedFile]:
        """Return the files that could not be used since the start."""
        return [DamagedFile(**asdict(one)) for one in self._damaged.all()]

    def load(self, default_alias: str) -> RouteTable:
        """Return the newest table, or an empty one.

        Raises:
            TableFileError: A newer release wrote it, or it cannot be read and the other files do
                not have all of it.
        """
        table = self._load_table(default_alias)
        catalogue = self._load_catalogue()
        return table if catalogue is None else self._with_models(table.with_catalogue(catalogue))

    def _load_table(self, default_alias: str) -> RouteTable:
        try:
            whole = self._table.load(self._changes.go_on_from)
            body = whole or TableBody(generation=0, active=[])
            changes = self._changes.load(body.changes)
        except OSError as error:
            raise TableFileError(f"{self._changes.path} cannot be read: {error}") from error
        # Which changes the generation before has is unknown, so none is dropped.
        self._written = (0, body.changes)
        self._changed = changes[-1].number if changes else body.changes
        if whole is None and changes:
            self._due[self._table_path] = self._write_whole_from_changes
        active = {entry.alias_ref: entry for entry in body.active}
        holds = body.refused_digests
        for change in changes:
            active |= {entry.alias_ref: entry for entry in change.active}
            for gone in change.inactive:
                active.pop(gone.alias_ref, None)
            holds = holds if change.refused_digests is None else change.refused_digests
        return RouteTable(
            default_alias=default_alias,
            generation=changes[-1].generation if changes else body.generation,
            active=active,
            refused_digests=tuple(holds),
        )

    def _write_whole_from_changes(self) -> None:
        """Write the table as a whole again, from its changes alone."""
        self._put_whole(self._load_table(""), self._changed)

    def _put_whole(self, table: RouteTable, number: int) -> None:
        """Write a table as a whole. ``number``: of its last change."""
        older, newer = self._known()
        newer_is_kept = self._table.save(
            TableBody(
                generation=table.generation,
                changes=number,
                active=list(table.active.values()),
                refused_digests=list(table.refused_digests),
            )
        )
        self._changed, self._refused_digests = number, table.refused_digests
        older = newer if newer_is_kept else older
        self._written = (older, number)
        try:
            self._changes.drop(older)
        except OSError as error:
            _log.warning("table.changes_kept", reason=str(error))

    def _known(self) -> tuple[int, int]:
        """Return the last change in each generation of the whole table, at least in the older."""
        if self._written is None:
            self._load_table("")
        return self._written or (0, 0)

    def save_change(self, table: RouteTable, moved: Iterable[AliasRef]) -> None:
        """Write the change to a table, in which these aliases moved; it is on disk on return.

        Raises:
            TableFileError: The disk refused; the table before is still there.
        """
        with self._writing:
            put = partial(self._put_change, table, moved)
            self._write(self._changes.path, put, instead=_REFUSES)

    def keep_change(self, table: RouteTable, moved: Iterable[AliasRef]) -> None:
        """Write a change that counts already, now or when the disk takes it."""
        with self._writing:
            self._unwritten.update(dict.fromkeys(moved))
            # The next change that is written includes this one.
            self._write_now_or_later(self._changes.path, partial(self._put_change, table, ()))

    def _put_change(self, table: RouteTable, moved: Iterable[AliasRef]) -> None:
        _, whole = self._known()
        keys = list({**self._unwritten, **dict.fromkeys(moved)})
        change = TableChange(
            number=self._changed + 1,
            generation=table.generation,
            active=[table.active[key] for key in keys if key in table.active],
            inactive=[AliasBody(**key._asdict()) for key in keys if key not in table.active],
            refused_digests=None
            if table.refused_digests is self._refused_digests
            else list(table.refused_digests),
        )
        try:
            self._changes.add(change)
        except OSError as error:
            raise TableFileError(f"the route table cannot be written: {error}") from error
        self._changed, self._refused_digests = change.number, table.refused_digests
        self._unwritten.clear()
        long_bytes = max(_LEAST_TABLE_CHANGES_BYTES, self._table.size_bytes())
        if not whole or max(self._changes.sizes()) > long_bytes:
            # The changes are long. If the disk refuses, the next change tries again.
            with contextlib.suppress(TableFileError):
                put = partial(self._put_whole, table, change.number)
                self._write(self._table_path, put, instead=_BESIDE)

    def keep_catalogue(self, document: bytes) -> None:
        """Write a valid catalogue's document, now or when the disk takes it.

        A document that is too long to be read again is not written.
        """
        if len(document) > _MOST_CATALOGUE_BYTES:
            _log.warning("catalogue.write_failed", bytes=len(document), most=_MOST_CATALOGUE_BYTES)
            return
        with self._writing:
            self._unwritten_models.clear()  # they belong to another epoch
            self._due.pop(self._models.path, None)
            self._write_now_or_later(self._catalogue, partial(self._put_catalogue, document))

    def _put_catalogue(self, document: bytes) -> None:
        _replace(self._catalogue, document)
        if self._models.size_bytes():  # of another epoch
            _replace(self._models.path, b"")

    def keep_model(self, document: bytes) -> None:
        """Write a valid `ModelChange`'s document, now or when the disk takes it."""
        with self._writing:
            self._unwritten_models.append(document)
            self._write_now_or_later(self._models.path, self._put_models)

    def _put_models(self) -> None:
        if self._catalogue in self._due:
            raise TableFileError("the catalogue that the models belong to is not written yet")
        try:
            self._models.add(self._unwritten_models)
        except OSError as error:
            raise TableFileError(f"{self._models.path} cannot be written: {error}") from error
        self._unwritten_models.clear()

    def are_model_changes_long(self) -> bool:
        """Whether the changed models are so long that a whole catalogue is needed."""
        longest = max(_LEAST_CATALOGUE_CHANGES_BYTES, 2 * size_bytes(self._catalogue))
        with self._writing:
            due = sum(map(len, self._unwritten_models))
        return self._models.size_bytes() + due > longest

    def write_due(self) -> None:
        """Write the content that the disk has refused, if it takes it now."""
        with self._writing:
            for path, put in tuple(self._due.items()):
                with contextlib.suppress(TableFileError):
                    self._write(path, put)

    def _write_now_or_later(self, path: Path, put: Callable[[], None]) -> None:
        try:
            self._write(path, put)
        except TableFileError:
            self._due[path] = put

    def _write(self, path: Path, put: Callable[[], None], *, instead: str = _UNTIL_WRITTEN) -> None:
        """Write a file, and report whether the disk refuses it.

        Raises:
            TableFileError: The disk refused, or the file would be too long to be read again.
        """
        try:
            put()
        except TableFileError as error:
            if isinstance(cause := error.__cause__, OSError):
                self._damaged.not_written(path, cause, instead=instead)
            raise
        self._due.pop(path, None)
        self._damaged.written(path)

    def _with_models(self, table: RouteTable) -> RouteTable:
        """Return a table with the later changes of its catalogue's models."""
        catalogue = table.catalogue
        try:
            found = self._models.read()
        except DamagedFileError as error:
            self._damaged.found(self._models.path, str(error), instead=_WITHOUT_CHANGES)
            return table
        except OSError as error:
            self._report_unreadable(self._models.path, error, _WITHOUT_CHANGES)
            return table
        if found.damaged:
            reason = f"has {found.damaged} damaged lines"
            self._damaged.found(self._models.path, reason, instead=_WITHOUT_LINES)
            self._unwritten_models = list(found.documents)
            self._due[self._models.path] = self._put_models
        news: dict[str, ModelChange] = {}
        for document in found.documents:
            change = _change(document)
            if change is not None and catalogue is not None and _is_of(change, catalogue):
                news[change.name] = change
        for change in news.values():
            table = table.with_model(change.name, change.model)
        return table

    def load_hot(self) -> list[ArtifactRef]:
        """Return the versions that were resident last time, the most used first, if known."""
        instead = "versions are loaded when they are called"
        body = self._load(self._hot, _HotBody, _MOST_HOT_BYTES, instead)
        return [one.ref for one in body.versions] if body is not None else []

    def save_hot(self, keys: Sequence[ArtifactRef]) -> None:
        """Write the resident versions, the most used first.

        Raises:
            TableFileError: The disk refused.
        """
        versions = [ArtifactBody(**key._asdict()) for key in keys]
        body = _HotBody(format_version=_HOT_FORMAT, versions=versions)
        content = body.model_dump_json(indent=1).encode()
        with self._writing:
            self._write(self._hot, partial(_replace, self._hot, content))

    def _load_catalogue(self) -> Catalogue | None:
        """Return the last catalogue, or None if it cannot be used."""
        instead = "active aliases are served, and the control plane publishes what else there is"
        return self._load(self._catalogue, Catalogue, _MOST_CATALOGUE_BYTES, instead)

    def _load(self, path: Path, kind: type[B], most_bytes: int, instead: str) -> B | None:
        """Return the content of a file, or None if it is missing or cannot be used."""
        try:
            content = read_file(path, most_bytes)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            self._damaged.found(path, str(error), instead=instead)
            return None
        except OSError as error:
            self._report_unreadable(path, error, instead)
            return None
        if _is_newer(path, content):
            return None
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            reason = f"is damaged ({error.error_count()} errors)" if content else "is empty"
            self._damaged.found(path, reason, instead=instead)
            return None

    def _report_unreadable(self, path: Path, error: OSError, instead: str) -> None:
        """Report a file that cannot be read; it may be whole, so it is not moved."""
        reason = f"cannot be read: {error.strerror}"
        self._damaged.found(path, reason, instead=instead, keep=False)


def _change(document: bytes) -> ModelChange | None:
    try:
        return ModelChange.model_validate_json(document)
    except ValidationError:
        return None  # of a newer release, whose catalogue is ignored too


def _is_of(change: ModelChange, catalogue: Catalogue) -> bool:
    return (change.writer, change.epoch) == (catalogue.writer, catalogue.epoch)


def _is_newer(path: Path, content: bytes) -> bool:
    """Whether a newer release wrote a file, which is ignored and not moved."""
    try:
        found = _Versioned.model_validate_json(content)
    except ValidationError:
        return False
    for version, known in (
        (found.contract_version, CONTRACT_VERSION),
        (found.format_version, _HOT_FORMAT),
    ):
        if version > known:
            _log.warning("file.ignored", file=str(path), format=version, known=known)
            return True
    return False


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise TableFileError(f"{path} cannot be written: {error}") from error
