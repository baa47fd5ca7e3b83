"""The whole route table on disk, in two generations, so that no crash leaves a node without one.

``table.json`` is the newest table, ``table.previous.json`` the one before. The changes since the
older one are beside them (`table_changes`), so one damaged file costs nothing. A table is saved in
four steps:

1. ``table.json.part`` is written and brought to disk;
2. ``table.json``, if it is whole, is renamed to ``table.previous.json``;
3. ``table.json.part`` is renamed to ``table.json``;
4. both renames are brought to disk.

A crash between 2 and 3 leaves the old table in ``table.previous.json`` alone, so `load` takes
``table.json``, else that. All were on disk before they were renamed, so the order in which the file
system keeps the renames does not matter. If step 3 or 4 fails, both renames are undone, so that no
start finds the refused table; if that fails too, it is logged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from gateway.contract import ActiveAlias, RefusedDigest
from gateway.errors import TableFileError
from gateway.system.files import (
    AlteredError,
    DamagedFiles,
    NewerFormatError,
    is_sealed,
    put_in_place,
    remove_file,
    seal,
    set_aside,
    size_bytes,
    sync_folder,
    unseal_known,
    write_beside,
)
from gateway.worker.process.guarded_read import DamagedFileError, read_file

FORMAT_VERSION = 2
_MOST_BYTES = 64 * 1024 * 1024
_ONE_BACK = "the table before it counts, with the changes that lie beside it"
_NONE = (
    "no table counts, but the changes that lie beside it: other aliases are not active until the "
    "control plane has brought back what its ledger knows"
)
_log = structlog.get_logger("gateway.routing.table_generations")


class TableBody(BaseModel):
    """A route table on disk. Unknown members are ignored: this release may be older.

    ``changes`` is the number of its last change; see `table_changes`. Before the first release
    ``refused_digests`` was called ``holds``.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    format_version: int = FORMAT_VERSION
    generation: int
    changes: int = 0
    active: list[ActiveAlias]
    refused_digests: list[RefusedDigest] = Field(
        default=[], validation_alias=AliasChoices("refused_digests", "holds")
    )


@dataclass(frozen=True, slots=True)
class _Unusable:
    """Why a file cannot be used, after "it". An unread file may be whole."""

    reason: str
    unread: bool = False


class TableGenerations:
    """Reads and writes both generations. Blocking: call from a thread, one call at a time.

    ``damaged`` receives damage.
    """

    def __init__(self, node_dir: Path, damaged: DamagedFiles) -> None:
        self._newest = node_dir / "table.json"
        self._previous = node_dir / "table.previous.json"
        self._part = node_dir / "table.json.part"
        self._damaged = damaged

    # --- load -------------------------------------------------------------------------------------

    def load(self, goes_on_from: Callable[[int], bool]) -> TableBody | None:
        """Return the newest whole table, or None. A disk that refuses to write prevents nothing.

        Args:
            goes_on_from: Whether the changes beside the table begin with the one after a number, so
                that they have all changes of an unreadable table.

        Raises:
            TableFileError: A newer release wrote the table, or it cannot be read and the other
                files do not have all of it.
        """
        newest = _read_table(self._newest)
        if isinstance(newest, TableBody):
            return newest
        previous = _read_table(self._previous)
        tried = {self._newest: newest, self._previous: previous}
        unusable = {path: one for path, one in tried.items() if isinstance(one, _Unusable)}
        unread = ", ".join(f"{path} {one.reason}" for path, one in unusable.items() if one.unread)
        found = previous if isinstance(previous, TableBody) else None
        if unread and (
            isinstance(previous, _Unusable) or not goes_on_from(found.changes if found else 0)
        ):
            raise TableFileError(unread)
        for path, one in unusable.items():
            instead = _ONE_BACK if found else _NONE
            self._damaged.found(path, one.reason, instead=instead, keep=not one.unread)
        if found is not None:
            if newest is None:
                self._report_missing()
            self._restore_previous()
        return found

    def _report_missing(self) -> None:
        """Report a missing file, unless a crash between the two renames explains it."""
        with contextlib.suppress(OSError, DamagedFileError, AlteredError):
            if is_sealed(read_file(self._part, _MOST_BYTES)):
                _log.info("table.recovered", file=str(self._previous))
                return
        self._damaged.found(self._newest, "is missing", instead=_ONE_BACK, keep=False)

    def _restore_previous(self) -> None:
        """Rename the previous table back; if the disk refuses, the next start does it."""
        with contextlib.suppress(OSError):
            if not os.path.lexists(self._newest):
                self._previous.replace(self._newest)
                sync_folder(self._newest.parent)
                remove_file(self._part)

    # --- save -------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """Return the size of the newest table, or 0."""
        return size_bytes(self._newest)

    def save(self, body: TableBody) -> bool:
        """Write a table; it is on disk when this returns.

        Returns:
            Whether the newest table became the previous one.

        Raises:
            TableFileError: The disk refused; the table before is still there.
        """
        content = seal(body.model_dump_json(indent=1).encode())
        if len(content) > _MOST_BYTES:
            raise TableFileError(f"{self._newest} cannot have more than {_MOST_BYTES} bytes")
        try:
            part = write_beside(self._newest, content)
            return self._put_in_place(part)
        except OSError as error:
            raise TableFileError(f"{self._newest} cannot be written: {error}") from error

    def _put_in_place(self, part: Path) -> bool:
        try:
            kept = self._keep_newest()
        except OSError:
            remove_file(part)
            raise
        try:
            put_in_place(part, self._newest)
        except OSError:
            try:
                if kept:
                    self._previous.replace(self._newest)
            except OSError as error:
                _log.error("table.restore_failed", file=str(self._newest), reason=str(error))
            raise
        return kept

    def _keep_newest(self) -> bool:
        """Make the newest table the previous one, if it is whole; return whether it was."""
        try:
            content = read_file(self._newest, _MOST_BYTES)
            if not is_sealed(content):
                _parse(self._newest, content)
        except OSError:
            return False  # it is missing, or unread: it does not become the previous one
        except (DamagedFileError, AlteredError, TableFileError) as error:
            instead = "nothing is lost: it is written anew"
            self._damaged.found(self._newest, str(error), instead=instead)
            return False
        try:
            self._newest.replace(self._previous)
        except IsADirectoryError:
            set_aside(self._previous)
            self._newest.replace(self._previous)
        return True


def _read_table(path: Path) -> TableBody | _Unusable | None:
    """Return a table, or why it cannot be used, or None if there is no file.

    Raises:
        TableFileError: A newer release wrote it.
    """
    try:
        return _parse(path, read_file(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        return _Unusable(f"cannot be read: {error.strerror}", unread=True)
    except (DamagedFileError, AlteredError) as error:
        return _Unusable(str(error))


def _parse(path: Path, content: bytes) -> TableBody:
    """Return the table of a file's content.

    Raises:
        AlteredError: It is damaged, or not a route table.
        TableFileError: A newer release wrote it.
    """
    try:
        members = unseal_known(content, FORMAT_VERSION)
        return TableBody.model_validate({"format_version": None, **members})
    except NewerFormatError as error:
        raise TableFileError(
            f"{path} has format {error.format_version}, this gateway knows {FORMAT_VERSION}: "
            "it was written by a newer version; start that one"
        ) from error
    except ValidationError as error:
        raise AlteredError(f"is not a route table ({error.error_count()} errors)") from error
