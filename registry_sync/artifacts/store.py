"""The artifacts of this node: content-addressed, read-only, complete or not there.

What is wrong with one artifact is its own trouble: without a record that can be read, a manifest
and a folder it does not count as here, is told of, and stays as it is until it is dropped, or comes
again.

::

    <node_dir>/artifacts/<hex>/              the artifact's folder
    <node_dir>/artifacts/<hex>.manifest      its manifest; the SHA-256 of this file is <hex>
    <node_dir>/artifacts/<hex>.json          its record: description and pins; in place last
    <node_dir>/artifacts/<hex>.json.part     the record of an artifact that comes in
    <node_dir>/artifacts/<hex>.json.removing the record of an artifact that is being removed
    <node_dir>/staging/                      where fetches work; same file system

A folder and a manifest without any of the three records are those of an artifact whose record was
lost. With one of the last two they are what a killed process left.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gateway.contract import digest_hex
from gateway.system.files import (
    AlteredError,
    DamagedFileError,
    NewerFormatError,
    put_in_place,
    read_file,
    replace_file,
    set_aside,
    sync_folder,
    write_beside,
)
from registry_sync.artifacts.artifact_record import Pin, StoredArtifact, read_record, record_of
from registry_sync.artifacts.copy_check import what_differs
from registry_sync.artifacts.description import DESCRIPTION_FORMAT_VERSION
from registry_sync.artifacts.file_tree import remove
from registry_sync.artifacts.manifest import Fetched, Manifest
from registry_sync.domain import PinnedVersion
from registry_sync.errors import StoreError, UnsafePathError
from registry_sync.system import DamagedFiles

__all__ = ["ArtifactStore", "Pin", "StoreUse", "StoredArtifact", "pinned_version"]

_MOST_RECORD_BYTES = 64 * 1024 * 1024
_MOST_MANIFEST_BYTES = 256 * 1024 * 1024
_MOST_SET_ASIDE = 8
_PARTS = frozenset({"", "json", "manifest"})
"""How the names of an artifact's folder, record and manifest end."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""Errors of a shortage: the system has nothing left for this process, whatever file it reads."""
_COMING, _REMOVING = ".json.part", ".json.removing"
"""How the names of records end that do not count."""
_HEX_DIGITS = frozenset("0123456789abcdef")
_HEX_LENGTH = 64
_READ_ONLY_FILE = 0o400
_READ_ONLY_FOLDER = 0o500
_log = structlog.get_logger("registry_sync.artifacts.store")


@dataclass(frozen=True, slots=True)
class StoreUse:
    """How full the artifact store is, in bytes.

    Attributes:
        stored_bytes: Of artifacts that are there, damaged, or half removed.
        coming_bytes: Booked for fetches under way.
        budget_bytes: How many both together may be; 0: as many as the disk takes.
    """

    stored_bytes: int
    coming_bytes: int
    budget_bytes: int

    @property
    def over_bytes(self) -> int:
        """How many there are too many; 0: none."""
        if not self.budget_bytes:
            return 0
        return max(0, self.stored_bytes + self.coming_bytes - self.budget_bytes)


class _DamagedError(Exception):
    """An artifact is there, and not whole. The message is a clause that says what is wrong."""


class _RecordGoneError(_DamagedError):
    """All of an artifact is there but its record."""


class ArtifactStore:
    """Owns ``artifacts/`` and ``staging/`` of a node. One process; any of its threads.

    It survives being killed at any moment: what is not complete does not count, and is removed by
    the next `open`.
    """

    def __init__(
        self,
        node_dir: Path,
        clock: Callable[[], float] = time.time,
        *,
        budget_bytes: int = 0,
        damaged_files: DamagedFiles | None = None,
    ) -> None:
        """Store the node's folder; `open` does the work.

        Args:
            node_dir: The node's folder.
            clock: Epoch seconds.
            budget_bytes: Most bytes of artifacts that are there or booked; 0: no such limit.
            damaged_files: Told of records that are set aside.
        """
        self._artifacts = node_dir / "artifacts"
        self._staging = node_dir / "staging"
        self._clock = clock
        self._lock = threading.Lock()
        self._budget_bytes = budget_bytes
        self._counting = threading.Lock()  # never held while anything is read or written
        self._sizes: dict[str, int] = {}
        self._coming: dict[Path, int] = {}
        self._damaged_files = damaged_files or DamagedFiles(clock)
        self._damaged: dict[str, str] = {}
        # Which artifacts have pins of a version or a creation: where to look, and no more.
        self._pinned: dict[object, set[str]] = {}
        self._pins_of: dict[str, set[object]] = {}
        self._carried: dict[str, tuple[Pin, ...]] = {}

    def open(self) -> None:
        """Make the folders; remove what a killed process left. The owner calls it once, at start.

        What cannot be removed stays: it does not count.

        Raises:
            StoreError: The folder cannot be used, or a newer release wrote into it.
        """
        with _as_store_error("be opened"):
            for folder in (self._artifacts, self._staging):
                _make_folder(folder)
            complete = self.all()
            leftovers = list(self._staging.iterdir())
            for entry in self._artifacts.iterdir():
                digest, part = _owner(entry.name)
                whole = digest in complete or digest in self._damaged
                if not ((whole and part in _PARTS) or _is_aside(entry)):
                    leftovers.append(entry)
            damaged = {digest: _bytes_in(self._folder(digest)) for digest in self._damaged}
        for leftover in sorted(leftovers, key=_is_mark):  # what tells of the others goes last
            _remove_or_tell(leftover)
        with self._counting:
            self._sizes = {one.digest: one.size_bytes for one in complete.values()}
            self._sizes |= damaged

    def _note_pins(self, artifact: StoredArtifact) -> None:
        versions = {(pin.model, pin.version) for pin in artifact.pins}
        creations = {pin.creation for pin in artifact.pins if pin.creation is not None}
        with self._counting:
            self._pins_of[artifact.digest] = versions | creations
            for of in self._pins_of[artifact.digest]:
                self._pinned.setdefault(of, set()).add(artifact.digest)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Lend a path for one fetch: not existing yet, in an own folder that is removed after.

        What was booked for it is given back with it, however the fetch ended.

        Raises:
            StoreError: The disk refused.
        """
        with _as_store_error("lend a staging folder"):
            own = Path(tempfile.mkdtemp(dir=self._staging))
        path = own / "artifact"
        try:
            yield path
        finally:
            remove(own)
            with self._counting:
                self._coming.pop(path, None)

    def book(self, folder: Path, total_bytes: int) -> int:
        """Keep room for ``total_bytes`` in all at a path of `staging`, if the budget has it.

        Returns:
            0: it is kept until the bytes are taken, or the path is given back. Else how many bytes
            are lacking, and nothing has changed.
        """
        with self._counting:
            others = sum(size for path, size in self._coming.items() if path != folder)
            use = StoreUse(sum(self._sizes.values()), others + total_bytes, self._budget_bytes)
            if use.over_bytes == 0:
                self._coming[folder] = total_bytes
            return use.over_bytes

    def use(self) -> StoreUse:
        """Return how full it is. Reads nothing: cheap enough for any occasion."""
        with self._counting:
            stored, coming = sum(self._sizes.values()), sum(self._coming.values())
            return StoreUse(stored, coming, self._budget_bytes)

    def free_bytes(self) -> int:
        """Return how many bytes are free on the file system.

        Raises:
            StoreError: It cannot be asked.
        """
        with _as_store_error("tell how much room there is"):
            return shutil.disk_usage(self._artifacts).free

    def add(
        self, fetched: Fetched, description: Mapping[str, Any], pin: Pin | None = None
    ) -> StoredArtifact:
        """Take a fetched folder (moved away from staging), fsynced and read-only.

        Idempotent: an artifact that is there already only gains the pin. One that comes in place of
        a copy that was dropped has the pins of that one.

        Raises:
            StoreError: The disk refused.
        """
        digest = fetched.manifest.digest
        with self._lock, _as_store_error("take an artifact"):
            present = self.get(digest)
            if present is None:
                self._carry_pins(digest)
                self._set_aside_damaged(digest)
                coming = StoredArtifact(
                    digest=digest,
                    path=self._folder(digest),
                    size_bytes=fetched.size_bytes,
                    description=dict(description),
                    pins=self._carried.pop(digest, ()),
                    stored_at=self._clock(),
                )
                self._move_in(fetched, coming if pin is None else coming.pinned(pin))
            elif pin is not None:
                self._write(present.pinned(pin))
        stored = self.get(digest)
        if stored is None:
            raise StoreError(f"the artifact {digest} disappeared from the store")
        return stored

    def get(self, digest: str) -> StoredArtifact | None:
        """Return a complete artifact, or None; of one that is damaged, `damaged` tells from now on.

        Raises:
            StoreError: A newer release wrote it, or this process lacks what it takes to look.
        """
        try:
            found = self._look(digest)
        except _DamagedError as error:
            if isinstance(error, _RecordGoneError) or _is_there(self._record(digest)):
                self._note(digest, str(error))
                return None
            found = None  # it is being removed
        self._damaged.pop(digest, None)
        if found is not None and digest not in self._pins_of:
            self._note_pins(found)
        return found

    def damaged(self) -> dict[str, str]:
        """Return the artifacts that were found damaged, and what is wrong with each."""
        return dict(self._damaged)

    def all(self) -> dict[str, StoredArtifact]:
        """Return every complete artifact by digest.

        Raises:
            StoreError: As of `get`.
        """
        with _as_store_error("be listed"):
            owners = [_owner(entry.name) for entry in self._artifacts.iterdir()]
        digests = {digest for digest, part in owners if digest and part in _PARTS}
        found = (self.get(digest) for digest in sorted(digests))
        return {artifact.digest: artifact for artifact in found if artifact}

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest of an artifact.

        Raises:
            StoreError: It is not there, or its bytes do not have this digest.
        """
        with _as_store_error(f"read the manifest of {digest}"):
            text = read_file(self._manifest(digest), _MOST_MANIFEST_BYTES).decode()
            manifest = Manifest.parse(text)
        if manifest.digest != digest:
            raise StoreError(f"the manifest kept for {digest} has the digest {manifest.digest}")
        return manifest

    def compare(self, digest: str, check: Callable[[], object]) -> str | None:
        """Return what is wrong with an artifact, by its bytes, as a clause; None if nothing is.

        Args:
            digest: Which one.
            check: Called now and then; what it raises ends the comparison.

        Raises:
            StoreError: The system does not let it be read, or a newer release wrote it.
        """
        found = self.get(digest)
        if found is None:
            return self._damaged.get(digest, "it is gone")
        try:
            manifest = self.manifest(digest)
        except StoreError as error:
            return f"its manifest cannot be used ({error.reason})"
        with _as_store_error(f"compare {digest}"):
            return what_differs(found.path, manifest.files, check)

    def pin(self, digest: str, pin: Pin) -> None:
        """Record for whom an artifact is kept; replaces any other pin of the same version.

        Raises:
            StoreError: There is no such artifact.
        """
        with self._lock, _as_store_error("record a pin"):
            artifact = self.get(digest)
            if artifact is None:
                raise StoreError(f"there is no artifact {digest} to pin")
            self._write(artifact.pinned(pin))

    def date_pin(self, digest: str, model: str, version: int, creation: str) -> None:
        """Record of which creation a pin is that an older release wrote without one.

        Raises:
            StoreError: The disk refused.
        """
        with self._lock, _as_store_error("record a creation"):
            artifact = self.get(digest)
            dated = artifact and artifact.dated(model, version, creation)
            if dated and dated != artifact:
                self._write(dated)

    def find_pin(
        self, model: str, version: int, *, mark: str | None = None
    ) -> tuple[StoredArtifact, Pin] | None:
        """Return what was accepted for a version, and the pin that says so, or None.

        Of two artifacts that were accepted for it, the one that was accepted last counts. What was
        accepted for its creation, by the registry's ``mark``, comes first, under any name.
        """
        with self._counting:
            digests = {
                *self._pinned.get((model, version), ()),
                *(self._pinned.get(mark, ()) if mark is not None else ()),
            }
        artifacts = [one for one in map(self.get, sorted(digests)) if one is not None]
        known = [(artifact, pin) for artifact in artifacts for pin in artifact.pins]
        found = [each for each in known if each[1].creation == mark is not None] or [
            each for each in known if (each[1].model, each[1].version) == (model, version)
        ]
        return max(found, key=lambda each: each[0].accepted_at(each[1]), default=None)

    def remove(self, digest: str) -> None:
        """Remove an artifact; one that is not there is fine, and so is a damaged one.

        Raises:
            StoreError: The disk refused.
        """
        with self._lock, _as_store_error(f"remove {digest}"):
            self._remove(digest)
            self._carried.pop(digest, None)

    def drop(self, digest: str) -> None:
        """Remove an artifact whose bytes are wrong; a record that cannot be used is kept aside.

        Raises:
            StoreError: The disk refused.
        """
        with self._lock, _as_store_error(f"drop {digest}"):
            self.get(digest)  # notes what is damaged, so that its record is kept aside
            self._drop(digest)

    def drop_damaged(self, digest: str) -> StoredArtifact | None:
        """Remove an artifact unless it is complete, by now; its record is kept aside.

        Returns:
            The artifact, if it is complete.

        Raises:
            StoreError: The disk refused.
        """
        with self._lock, _as_store_error(f"drop {digest}"):
            found = self.get(digest)
            if found is None:
                self._drop(digest)
            return found

    # --- layout ---------------------------------------------------------------------------------

    def _folder(self, digest: str) -> Path:
        return self._artifacts / digest_hex(digest)

    def _manifest(self, digest: str) -> Path:
        return self._artifacts / f"{digest_hex(digest)}.manifest"

    def _record(self, digest: str) -> Path:
        return self._artifacts / f"{digest_hex(digest)}.json"

    def _marked(self, digest: str, end: str) -> Path:
        return self._artifacts / f"{digest_hex(digest)}{end}"

    def _lacks_record(self, digest: str) -> bool:
        """Whether all of an artifact is here but its record, and it neither comes nor goes."""
        here = _is_there(self._folder(digest)) and _is_there(self._manifest(digest))
        records = (
            *(self._marked(digest, _COMING), self._record(digest)),
            self._marked(digest, _REMOVING),
        )
        return here and not any(_is_there(record) for record in records)

    def _move_in(self, fetched: Fetched, artifact: StoredArtifact) -> None:
        """Make the folder durable and read-only and give it its final name; then its manifest.

        From the last rename, the record's, the artifact counts.
        """
        record = self._record(artifact.digest)
        coming = write_beside(record, record_of(artifact), mode=_READ_ONLY_FILE)
        target = artifact.path
        remove(target)  # without a record it is what a killed process left
        _seal(fetched.folder)
        fetched.folder.rename(target)
        with self._counting:  # what was booked is stored from here on: never counted twice
            self._coming.pop(fetched.folder, None)
            self._sizes[artifact.digest] = artifact.size_bytes
        target.chmod(_READ_ONLY_FOLDER)  # only now: a folder that cannot be written cannot move
        text = fetched.manifest.text().encode()
        replace_file(self._manifest(artifact.digest), text, mode=_READ_ONLY_FILE)
        put_in_place(coming, record)
        self._note_pins(artifact)

    def _drop(self, digest: str) -> None:
        self._carry_pins(digest)
        self._set_aside_damaged(digest)
        self._remove(digest)

    def _remove(self, digest: str) -> None:
        """Remove an artifact. Its record is renamed first, and says that the rest is to go."""
        going = self._marked(digest, _REMOVING)
        if os.path.lexists(going):  # of a removal that the disk refused
            remove(going)
        with suppress(FileNotFoundError):
            self._record(digest).rename(going)
        sync_folder(self._artifacts)
        remove(self._manifest(digest))
        remove(self._folder(digest))
        remove(going)
        self._damaged.pop(digest, None)
        with self._counting:  # only now: what could be removed by half takes room still
            self._sizes.pop(digest, None)
            for of in self._pins_of.pop(digest, ()):
                self._pinned[of].discard(digest)
                if not self._pinned[of]:
                    del self._pinned[of]

    def _look(self, digest: str) -> StoredArtifact | None:
        """Return what the disk has of an artifact; None: it is not there, or comes or goes.

        Raises:
            _DamagedError: It is not whole, or cannot be read.
            StoreError: A newer release wrote it, or this process lacks what it takes to look.
        """
        try:
            with _reading("record", digest):
                content = read_file(self._record(digest), _MOST_RECORD_BYTES)
            found = read_record(content, digest, self._folder(digest))
        except FileNotFoundError as error:
            if self._lacks_record(digest):
                raise _RecordGoneError("its record is gone") from error
            return None
        except (DamagedFileError, AlteredError) as error:
            raise _DamagedError(f"its record {error}") from error
        except NewerFormatError as error:
            raise StoreError(
                f"the artifact {digest} was stored by a newer release (format "
                f"{error.format_version}, this one knows {DESCRIPTION_FORMAT_VERSION}): run that "
                "release, or use another folder"
            ) from error
        with _reading("folder", digest):
            if not stat.S_ISDIR(_mode(self._folder(digest))):
                raise _DamagedError("its folder is gone")
        with _reading("manifest", digest):
            if not stat.S_ISREG(_mode(self._manifest(digest))):
                raise _DamagedError("its manifest is gone")
        return found

    def _note(self, digest: str, reason: str) -> None:
        """Remember what is wrong with an artifact; the log is told once."""
        if self._damaged.get(digest) != reason:
            _log.error("artifact.damaged", digest=digest, reason=reason)
        self._damaged[digest] = reason

    def _carry_pins(self, digest: str) -> None:
        """Keep the pins of a copy that goes for the one that comes in its place.

        They are about the bytes, which are the same. They were not accepted anew, though.
        """
        with suppress(OSError, DamagedFileError, AlteredError, NewerFormatError):
            content = read_file(self._record(digest), _MOST_RECORD_BYTES)
            going = read_record(content, digest, self._folder(digest))
            self._carried[digest] = tuple(
                dataclasses.replace(pin, accepted_at=going.accepted_at(pin)) for pin in going.pins
            )

    def _set_aside_damaged(self, digest: str) -> None:
        """Keep a damaged record, if there is one, aside, so that the artifact may come again."""
        reason = self._damaged.get(digest)
        if reason is None:
            return
        # Listed first: if this process cannot even do that, nothing has changed.
        aside = [entry for entry in self._artifacts.iterdir() if _is_aside(entry)]
        aside.sort(key=lambda one: one.lstat().st_ctime_ns)
        instead = "the artifact is fetched again, and verified, when the registry answers"
        self._damaged_files.found(self._record(digest), f"is damaged: {reason}", instead=instead)
        for old in aside[: -_MOST_SET_ASIDE + 1]:
            remove(old)
        self._damaged.pop(digest, None)

    def _write(self, artifact: StoredArtifact) -> None:
        """Write the record of an artifact that is here."""
        replace_file(self._record(artifact.digest), record_of(artifact), mode=_READ_ONLY_FILE)
        self._note_pins(artifact)


def _make_folder(folder: Path) -> None:
    """Make a folder; a file in its place is set aside."""
    if not folder.is_dir():
        if os.path.lexists(folder):
            set_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)


def _remove_or_tell(leftover: Path) -> None:
    try:
        remove(leftover)
    except OSError as error:
        _log.warning("leftover.kept", path=str(leftover), reason=str(error))


@contextmanager
def _as_store_error(what: str) -> Iterator[None]:
    """Turn what disk and JSON raise into a sentence."""
    try:
        yield
    except (OSError, ValueError, DamagedFileError, UnsafePathError) as error:
        raise StoreError(f"the artifact store cannot {what}: {error}") from error


def _owner(name: str) -> tuple[str | None, str]:
    """Return the digest that an entry of ``artifacts/`` belongs to, and how its name ends."""
    stem, _, end = name.partition(".")
    is_hex = len(stem) == _HEX_LENGTH and _HEX_DIGITS.issuperset(stem)
    return (f"sha256:{stem}" if is_hex else None), end


def _is_mark(entry: Path) -> bool:
    return entry.name.endswith((_COMING, _REMOVING))


def _bytes_in(folder: Path) -> int:
    """Return how many bytes the files in a folder have, as far as it can be read."""
    if os.path.islink(folder):  # noqa: PTH114  # raises nothing
        return 0
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    total = 0
    for path in found:
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def _mode(path: Path) -> int:
    """Return the kind of what lies at a path, as the system has it; 0 if nothing does."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_there(path: Path) -> bool:
    """Whether something lies at a path, as far as the system tells."""
    try:
        return _mode(path) != 0
    except OSError:
        return True


@contextmanager
def _reading(part: str, digest: str) -> Iterator[None]:
    """Tell a part of an artifact that cannot be read from a process that cannot read anything.

    Raises:
        _DamagedError: The part cannot be read.
        StoreError: This process lacks what it takes to look.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise StoreError(
                f"the artifact store cannot look at {digest}: {error.strerror}"
            ) from error
        raise _DamagedError(f"its {part} cannot be read: {error.strerror}") from error


def _is_aside(entry: Path) -> bool:
    return _owner(entry.name)[1].startswith("json.damaged-")


def _seal(folder: Path) -> None:
    """Fsync every file and folder and take away the right to write, but the top folder's."""
    for root, folders, files in os.walk(folder):
        for name in files:
            file = Path(root, name)
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fchmod(descriptor, _READ_ONLY_FILE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for name in folders:
            Path(root, name).chmod(_READ_ONLY_FOLDER)
        sync_folder(Path(root))


def pinned_version(artifact: StoredArtifact, pin: Pin) -> PinnedVersion:
    """Return the ledger's form of a pin of the store."""
    return PinnedVersion(
        model=pin.model,
        version=pin.version,
        digest=artifact.digest,
        expected_digest=pin.expected_digest,
        stamped=pin.stamped,
        listing=pin.listing,
        creation=pin.creation,
        accepted_at=artifact.accepted_at(pin),
    )
