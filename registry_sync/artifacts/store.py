"""The artifact store of this node: content-addressed, read-only, atomic.

An artifact without a readable record, a manifest and a folder is damaged: it is reported, counts as
absent, and stays until it is dropped or fetched again.

::

    <node_dir>/artifacts/<hex>/              the artifact's folder
    <node_dir>/artifacts/<hex>.manifest      its manifest; the SHA-256 of this file is <hex>
    <node_dir>/artifacts/<hex>.json          its record, written last: description and acceptances
    <node_dir>/artifacts/<hex>.json.part     the record of an artifact being added
    <node_dir>/artifacts/<hex>.json.removing the record of an artifact being removed
    <node_dir>/incoming/                     folders of fetches; same file system

A folder and a manifest with one of the last two records are leftovers of a killed process; without
any record, they are an artifact whose record was lost.
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
    sync_folder,
    write_beside,
)
from registry_sync.artifacts.artifact_record import (
    Acceptance,
    StoredArtifact,
    read_record,
    record_of,
)
from registry_sync.artifacts.copy_check import what_differs
from registry_sync.artifacts.description import DESCRIPTION_FORMAT_VERSION
from registry_sync.artifacts.file_tree import make_folder, remove
from registry_sync.artifacts.manifest import FetchedArtifact, Manifest
from registry_sync.domain import AcceptedDigest
from registry_sync.errors import StoreError, UnsafePathError
from registry_sync.system import DamagedFiles

__all__ = ["Acceptance", "ArtifactStore", "StoreUse", "StoredArtifact", "accepted_digest"]

_MOST_RECORD_BYTES = 64 * 1024 * 1024
_MOST_MANIFEST_BYTES = 256 * 1024 * 1024
_MOST_SET_ASIDE = 8
_PARTS = frozenset({"", "json", "manifest"})
"""Suffixes of an artifact's folder, record and manifest."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""Errors of a process without descriptors or memory, which say nothing about a file."""
_COMING, _REMOVING = ".json.part", ".json.removing"
"""Suffixes of records of incomplete artifacts."""
_HEX_DIGITS = frozenset("0123456789abcdef")
_HEX_LENGTH = 64
_READ_ONLY_FILE = 0o400
_READ_ONLY_FOLDER = 0o500
_log = structlog.get_logger("registry_sync.artifacts.store")


@dataclass(frozen=True, slots=True)
class StoreUse:
    """The use of the artifact store, in bytes.

    ``stored_bytes`` include damaged and half-removed artifacts, ``coming_bytes`` are reserved for
    fetches, and ``budget_bytes`` limit their sum; 0 for no limit.
    """

    stored_bytes: int
    coming_bytes: int
    budget_bytes: int

    @property
    def over_bytes(self) -> int:
        """Bytes above the budget."""
        if not self.budget_bytes:
            return 0
        return max(0, self.stored_bytes + self.coming_bytes - self.budget_bytes)


class _DamagedError(Exception):
    """An artifact is present and damaged. The message is a clause."""


class _RecordGoneError(_DamagedError):
    """Only the record of an artifact is missing."""


class ArtifactStore:
    """Owns ``artifacts/`` and ``incoming/`` of a node. One process; any of its threads.

    The process may be killed at any moment: `open` removes incomplete artifacts. Every method may
    raise `StoreError`: the disk refused, or a newer release wrote the files. ``clock`` gives epoch
    seconds; ``budget_bytes`` limit stored and reserved bytes, if not 0.
    """

    def __init__(
        self,
        node_dir: Path,
        clock: Callable[[], float] = time.time,
        *,
        budget_bytes: int = 0,
        damaged_files: DamagedFiles | None = None,
    ) -> None:
        self._artifacts = node_dir / "artifacts"
        self._incoming = node_dir / "incoming"
        self._formerly_incoming = node_dir / "staging"  # before the first release
        self._clock = clock
        self._lock = threading.Lock()
        self._budget_bytes = budget_bytes
        self._counting = threading.Lock()  # never held during I/O
        self._sizes: dict[str, int] = {}
        self._coming: dict[Path, int] = {}
        self._damaged_files = damaged_files or DamagedFiles(clock)
        self._damaged: dict[str, str] = {}
        # An index of artifacts by the versions and creations that accepted them, and its reverse.
        self._accepted_by: dict[object, set[str]] = {}
        self._acceptors_of: dict[str, set[object]] = {}
        self._carried: dict[str, tuple[Acceptance, ...]] = {}

    def open(self) -> None:
        """Make the folders, and remove leftovers of a killed process. Call once, at the start.

        Raises:
            StoreError: The folder cannot be used, or a newer release wrote to it.
        """
        with _as_store_error("be opened"):
            for folder in (self._artifacts, self._incoming):
                make_folder(folder)
            complete = self.all()
            leftovers = list(self._incoming.iterdir())
            if self._formerly_incoming.exists():
                leftovers.append(self._formerly_incoming)
            for entry in self._artifacts.iterdir():
                digest, part = _owner(entry.name)
                whole = digest in complete or digest in self._damaged
                if not ((whole and part in _PARTS) or _is_aside(entry)):
                    leftovers.append(entry)
            damaged = {digest: _bytes_in(self._folder(digest)) for digest in self._damaged}
        for leftover in sorted(leftovers, key=_is_mark):  # marks last: they identify the others
            _try_to_remove(leftover)
        with self._counting:
            self._sizes = {one.digest: one.size_bytes for one in complete.values()}
            self._sizes |= damaged

    def _index(self, artifact: StoredArtifact) -> None:
        versions = {(one.model, one.version) for one in artifact.accepted}
        creations = {one.creation for one in artifact.accepted if one.creation is not None}
        with self._counting:
            self._acceptors_of[artifact.digest] = versions | creations
            for of in self._acceptors_of[artifact.digest]:
                self._accepted_by.setdefault(of, set()).add(artifact.digest)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Lend a path, not existing yet, for one fetch; remove its folder and reservation after."""
        with _as_store_error("lend an incoming folder"):
            own = Path(tempfile.mkdtemp(dir=self._incoming))
        path = own / "artifact"
        try:
            yield path
        finally:
            with self._counting:
                self._coming.pop(path, None)
            _try_to_remove(own)  # `open` removes what stays

    def book(self, folder: Path, total_bytes: int) -> int:
        """Reserve bytes for a path of `incoming`; return 0.

        If the budget is exceeded, reserve nothing; return the bytes above it.
        """
        with self._counting:
            others = sum(size for path, size in self._coming.items() if path != folder)
            use = StoreUse(sum(self._sizes.values()), others + total_bytes, self._budget_bytes)
            if use.over_bytes == 0:
                self._coming[folder] = total_bytes
            return use.over_bytes

    def use(self) -> StoreUse:
        """Return the use of the store, without any I/O."""
        with self._counting:
            stored, coming = sum(self._sizes.values()), sum(self._coming.values())
            return StoreUse(stored, coming, self._budget_bytes)

    def free_bytes(self) -> int:
        """Return the free bytes of the file system."""
        with _as_store_error("measure the free space"):
            return shutil.disk_usage(self._artifacts).free

    def add(
        self,
        fetched: FetchedArtifact,
        description: Mapping[str, Any],
        acceptance: Acceptance | None = None,
    ) -> StoredArtifact:
        """Move a fetched folder into the store, fsynced and read-only.

        Idempotent: an artifact that exists only gains the acceptance. One that replaces a dropped
        copy keeps the acceptances of that copy.
        """
        digest = fetched.manifest.digest
        with self._lock, _as_store_error("add an artifact"):
            present = self.get(digest)
            if present is None:
                self._carry_acceptances(digest)
                self._set_aside_damaged(digest)
                coming = StoredArtifact(
                    digest=digest,
                    path=self._folder(digest),
                    size_bytes=fetched.size_bytes,
                    description=dict(description),
                    accepted=self._carried.pop(digest, ()),
                    stored_at=self._clock(),
                )
                self._move_in(
                    fetched, coming if acceptance is None else coming.with_acceptance(acceptance)
                )
            elif acceptance is not None:
                self._write(present.with_acceptance(acceptance))
        stored = self.get(digest)
        if stored is None:
            raise StoreError(f"the artifact {digest} disappeared from the store")
        return stored

    def get(self, digest: str) -> StoredArtifact | None:
        """Return a complete artifact, or None; a damaged one appears in `damaged`.

        Raises:
            StoreError: A newer release wrote it, or the process lacks descriptors or memory.
        """
        try:
            found = self._look(digest)
        except _DamagedError as error:
            if isinstance(error, _RecordGoneError) or _is_there(self._record(digest)):
                self._note_damage(digest, str(error))
                return None
            found = None  # being removed
        self._damaged.pop(digest, None)
        if found is not None and digest not in self._acceptors_of:
            self._index(found)
        return found

    def damaged(self) -> dict[str, str]:
        """Return the damage of each damaged artifact, as a clause."""
        return dict(self._damaged)

    def all(self) -> dict[str, StoredArtifact]:
        """Return every complete artifact by digest."""
        with _as_store_error("be listed"):
            owners = [_owner(entry.name) for entry in self._artifacts.iterdir()]
        digests = {digest for digest, part in owners if digest and part in _PARTS}
        found = (self.get(digest) for digest in sorted(digests))
        return {artifact.digest: artifact for artifact in found if artifact}

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest of an artifact.

        Raises:
            StoreError: The manifest is missing, or has another digest.
        """
        with _as_store_error(f"read the manifest of {digest}"):
            text = read_file(self._manifest(digest), _MOST_MANIFEST_BYTES).decode()
            manifest = Manifest.parse(text)
        if manifest.digest != digest:
            raise StoreError(f"the manifest of {digest} has the digest {manifest.digest}")
        return manifest

    def compare(self, digest: str, check: Callable[[], object]) -> str | None:
        """Verify the bytes of an artifact; return the damage as a clause, or None.

        ``check`` is called between blocks; an error from it ends the verification.

        Raises:
            StoreError: The artifact cannot be read, or a newer release wrote it.
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

    def accept(self, digest: str, acceptance: Acceptance) -> None:
        """Record an acceptance, in place of the version's former one.

        Raises:
            StoreError: The artifact is not in the store.
        """
        with self._lock, _as_store_error("record an acceptance"):
            artifact = self.get(digest)
            if artifact is None:
                raise StoreError(f"there is no artifact {digest} to accept")
            self._write(artifact.with_acceptance(acceptance))

    def note_creation(self, digest: str, model: str, version: int, creation: str) -> None:
        """Record the creation of an acceptance that an older release wrote without one."""
        with self._lock, _as_store_error("record a creation"):
            artifact = self.get(digest)
            changed = artifact and artifact.with_creation(model, version, creation)
            if changed and changed != artifact:
                self._write(changed)

    def find_accepted(
        self, model: str, version: int, *, mark: str | None = None
    ) -> tuple[StoredArtifact, Acceptance] | None:
        """Return the artifact accepted last for a version, with its acceptance, or None.

        An acceptance for the version's creation, by the registry's ``mark``, is preferred, under
        any name.
        """
        with self._counting:
            digests = {
                *self._accepted_by.get((model, version), ()),
                *(self._accepted_by.get(mark, ()) if mark is not None else ()),
            }
        artifacts = [one for one in map(self.get, sorted(digests)) if one is not None]
        known = [(artifact, one) for artifact in artifacts for one in artifact.accepted]
        found = [each for each in known if each[1].creation == mark is not None] or [
            each for each in known if (each[1].model, each[1].version) == (model, version)
        ]
        return max(found, key=lambda each: each[0].accepted_at(each[1]), default=None)

    def remove(self, digest: str) -> None:
        """Remove an artifact, damaged or not, if it exists."""
        with self._lock, _as_store_error(f"remove {digest}"):
            self._remove(digest)
            self._carried.pop(digest, None)

    def drop(self, digest: str) -> None:
        """Remove an artifact whose bytes are wrong, and set a damaged record aside."""
        with self._lock, _as_store_error(f"drop {digest}"):
            self.get(digest)  # notes damage, so that the record is set aside
            self._drop(digest)

    def drop_damaged(self, digest: str) -> StoredArtifact | None:
        """Return an artifact that is complete; remove any other, and set its record aside."""
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
        """Whether an artifact has folder and manifest, and no record at all."""
        present = _is_there(self._folder(digest)) and _is_there(self._manifest(digest))
        records = (
            *(self._marked(digest, _COMING), self._record(digest)),
            self._marked(digest, _REMOVING),
        )
        return present and not any(_is_there(record) for record in records)

    def _move_in(self, fetched: FetchedArtifact, artifact: StoredArtifact) -> None:
        """Fsync the folder, make it read-only and rename it; then the manifest, then the record."""
        record = self._record(artifact.digest)
        coming = write_beside(record, record_of(artifact), mode=_READ_ONLY_FILE)
        target = artifact.path
        remove(target)  # a leftover of a killed process
        _seal(fetched.folder)
        fetched.folder.rename(target)
        with self._counting:  # reserved bytes become stored bytes
            self._coming.pop(fetched.folder, None)
            self._sizes[artifact.digest] = artifact.size_bytes
        target.chmod(_READ_ONLY_FOLDER)  # a read-only folder cannot be renamed
        text = fetched.manifest.text().encode()
        replace_file(self._manifest(artifact.digest), text, mode=_READ_ONLY_FILE)
        put_in_place(coming, record)
        self._index(artifact)

    def _drop(self, digest: str) -> None:
        self._carry_acceptances(digest)
        self._set_aside_damaged(digest)
        self._remove(digest)

    def _remove(self, digest: str) -> None:
        """Remove an artifact. Its record is renamed first, to mark the rest for removal."""
        going = self._marked(digest, _REMOVING)
        if os.path.lexists(going):  # of an earlier, failed removal
            remove(going)
        with suppress(FileNotFoundError):
            self._record(digest).rename(going)
        sync_folder(self._artifacts)
        remove(self._manifest(digest))
        remove(self._folder(digest))
        remove(going)
        self._damaged.pop(digest, None)
        with self._counting:  # last: a half-removed artifact takes space
            self._sizes.pop(digest, None)
            for of in self._acceptors_of.pop(digest, ()):
                self._accepted_by[of].discard(digest)
                if not self._accepted_by[of]:
                    del self._accepted_by[of]

    def _look(self, digest: str) -> StoredArtifact | None:
        """Return an artifact from the disk, or None if it is absent, being added or removed.

        Raises:
            _DamagedError: The artifact is damaged.
            StoreError: A newer release wrote it, or the process lacks descriptors or memory.
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

    def _note_damage(self, digest: str, reason: str) -> None:
        """Record the damage of an artifact; log each reason once."""
        if self._damaged.get(digest) != reason:
            _log.error("artifact.damaged", digest=digest, reason=reason)
        self._damaged[digest] = reason

    def _carry_acceptances(self, digest: str) -> None:
        """Keep the acceptances of a dropped copy, with their times, for its replacement."""
        with suppress(OSError, DamagedFileError, AlteredError, NewerFormatError):
            content = read_file(self._record(digest), _MOST_RECORD_BYTES)
            going = read_record(content, digest, self._folder(digest))
            self._carried[digest] = tuple(
                dataclasses.replace(one, accepted_at=going.accepted_at(one))
                for one in going.accepted
            )

    def _set_aside_damaged(self, digest: str) -> None:
        """Set the record of a damaged artifact aside, so that it can be added again."""
        reason = self._damaged.get(digest)
        if reason is None:
            return
        # First: if this fails, nothing has changed.
        aside = [entry for entry in self._artifacts.iterdir() if _is_aside(entry)]
        aside.sort(key=lambda one: one.lstat().st_ctime_ns)
        instead = "the artifact is fetched again, and verified, when the registry answers"
        self._damaged_files.found(self._record(digest), f"is damaged: {reason}", instead=instead)
        for old in aside[: -_MOST_SET_ASIDE + 1]:
            remove(old)
        self._damaged.pop(digest, None)

    def _write(self, artifact: StoredArtifact) -> None:
        """Write the record of a stored artifact."""
        replace_file(self._record(artifact.digest), record_of(artifact), mode=_READ_ONLY_FILE)
        self._index(artifact)


def _try_to_remove(leftover: Path) -> None:
    try:
        remove(leftover)
    except OSError as error:
        _log.warning("leftover.kept", path=str(leftover), reason=str(error))


@contextmanager
def _as_store_error(what: str) -> Iterator[None]:
    """Convert errors of disk and JSON to a `StoreError`."""
    try:
        yield
    except (OSError, ValueError, DamagedFileError, UnsafePathError) as error:
        raise StoreError(f"the artifact store cannot {what}: {error}") from error


def _owner(name: str) -> tuple[str | None, str]:
    """Return the digest and the suffix of an entry of ``artifacts/``."""
    stem, _, end = name.partition(".")
    is_hex = len(stem) == _HEX_LENGTH and _HEX_DIGITS.issuperset(stem)
    return (f"sha256:{stem}" if is_hex else None), end


def _is_mark(entry: Path) -> bool:
    return entry.name.endswith((_COMING, _REMOVING))


def _bytes_in(folder: Path) -> int:
    """Return the bytes of the readable files in a folder."""
    if os.path.islink(folder):  # noqa: PTH114  # raises nothing
        return 0
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    total = 0
    for path in found:
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def _mode(path: Path) -> int:
    """Return the mode of a path, or 0 if nothing is there."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_there(path: Path) -> bool:
    """Whether a path exists, or the system refuses to say."""
    try:
        return _mode(path) != 0
    except OSError:
        return True


@contextmanager
def _reading(part: str, digest: str) -> Iterator[None]:
    """Convert errors of reading a part of an artifact.

    Raises:
        _DamagedError: The part cannot be read.
        StoreError: The process lacks descriptors or memory.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise StoreError(
                f"the artifact store cannot read {digest}: {error.strerror}"
            ) from error
        raise _DamagedError(f"its {part} cannot be read: {error.strerror}") from error


def _is_aside(entry: Path) -> bool:
    return _owner(entry.name)[1].startswith("json.damaged-")


def _seal(folder: Path) -> None:
    """Fsync all files and folders, and make them read-only except for the top folder."""
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


def accepted_digest(artifact: StoredArtifact, acceptance: Acceptance) -> AcceptedDigest:
    """Return the ledger's record of an acceptance in the store."""
    return AcceptedDigest(
        model=acceptance.model,
        version=acceptance.version,
        digest=artifact.digest,
        expected_digest=acceptance.expected_digest,
        stamped=acceptance.stamped,
        listing=acceptance.listing,
        creation=acceptance.creation,
        accepted_at=artifact.accepted_at(acceptance),
    )
