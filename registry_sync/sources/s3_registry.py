"""A registry in a prefix of an S3 bucket, without MLflow. See `s3_layout`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.contract import InvalidReferenceError
from registry_sync.artifacts import Manifest
from registry_sync.domain import Aspired, AspiredModel, AspiredVersion, LatestPolicy
from registry_sync.errors import SourceError, UnsafePathError
from registry_sync.sources.aliases import READY, read_aliases
from registry_sync.sources.s3_layout import (
    MAX_ALIASES_BYTES,
    MAX_MANIFEST_BYTES,
    ManifestVersion,
    ModelListing,
    ModelLocation,
    Root,
    check_name,
    list_model,
    list_registry,
    parse_aliases,
    read_small,
)
from registry_sync.sources.storage import (
    as_source_error,
    connect_s3,
    is_gone,
    parts_in_order,
    wait_for,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CALLS_AT_ONCE = 16
_REMEMBERED = 50_000
_READ_TIMEOUT_S = 10
_LISTING_LIMIT_S = 300.0

_NOTHING: tuple[ModelListing | None, None] = (None, None)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The digest of a manifest, or why it cannot be read."""

    digest: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Aliases:
    """The targets of a model's aliases, unchecked, or why they cannot be read."""

    targets: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def connect_s3_registry(
    uri: str, environ: Mapping[str, str], *, latest: LatestPolicy = "without_aliases"
) -> S3Registry:
    """Return a source for ``s3://bucket/prefix``; ``latest`` says which models have that alias.

    Raises:
        SourceError: The URI has no bucket.
    """
    try:
        root = Root.at(uri)
    except InvalidReferenceError as error:
        raise SourceError(str(error)) from error

    def connect() -> S3Client:
        with as_source_error("S3 cannot be used as a registry"):
            return connect_s3(environ, read_timeout_s=_READ_TIMEOUT_S)

    return S3Registry(connect, root, latest=latest)


class S3Registry:
    """A `Source` of the versions that have a manifest.

    Every listing reads all keys, a thousand per call. Manifests and aliases are cached by key and
    ETag, and models by their objects. ``connect`` is called at the first call, because importing
    boto3 takes a second; ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        connect: Callable[[], S3Client],
        root: Root,
        *,
        latest: LatestPolicy = "without_aliases",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._root = root
        self._latest = latest
        self._clock = clock
        self._stamp = lru_cache(_REMEMBERED)(self._read_manifest)
        self._aliases = lru_cache(_REMEMBERED)(self._read_aliases)
        self._last: Mapping[str, tuple[ModelListing, AspiredModel]] = {}

    @cached_property
    def _client(self) -> S3Client:
        return self._connect()

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return f"the registry at {self._root.uri}"

    def aspired(self, before: Aspired | None = None) -> Aspired:  # noqa: ARG002 - see the class
        """List all published versions."""
        listed_at = self._clock()
        give_up_at = time.monotonic() + _LISTING_LIMIT_S
        with as_source_error(f"{self.name} could not be listed"):
            found = wait_for(
                lambda cancelled: list_registry(
                    self._client, self._root, partial(_check, cancelled)
                ),
                partial(_give_up, give_up_at),
            )
            listings, problems = _named(found)
            last = self._last
            news = [one for one in listings if last.get(one.location.model, _NOTHING)[0] != one]
            # Read all small objects first, side by side.
            reads = [read for found in news for read in self._reads(found)]
            list(_side_by_side(reads, give_up_at))
            changed = {found.location.model: self._model(found) for found in news}
        self._last = {
            name: (one, changed[name] if name in changed else last[name][1])
            for name, one in ((one.location.model, one) for one in listings)
        }
        models = {name: model for name, (_, model) in self._last.items()}
        return Aspired(models, listed_at, tuple(problems))

    def model(self, name: str) -> AspiredModel | None:
        """Return one model, or None if nothing of it is published."""
        with as_source_error(f"the model {name!r} could not be listed"):
            try:
                location = ModelLocation(self._root, check_name(name))
            except InvalidReferenceError:
                return None
            found = list_model(self._client, location)
            return self._model(found) if found.published or found.aliases else None

    def version(self, model: str, version: int) -> AspiredVersion:
        """Return one published version."""
        location, published = self._published(model, version)
        with as_source_error(f"the manifest of version {version} of {model!r} could not be read"):
            stamp = self._stamp(location, version, published.etag)
        if stamp.problem:
            raise SourceError(stamp.problem)
        return _version(location, version, published, stamp)

    def locate(self, model: str, version: int) -> str:
        """Return the URI of a published version's files."""
        location, _ = self._published(model, version)
        return location.uri(location.files(version))

    def is_whole(self, version: AspiredVersion) -> bool:  # noqa: ARG002 - of any version
        """Return True: the manifest, which lists a version, is written after its last file."""
        return True

    def stamp(self, model: str, version: int, digest: str) -> None:
        """Check that the version's manifest, which is its stamp, has this digest.

        Raises:
            SourceError: The manifest has another digest, or could not be read.
        """
        stamped = self.version(model, version).expected_digest
        if stamped != digest:
            raise SourceError(
                f"version {version} of {model!r} was published with digest {stamped}, which cannot "
                "be changed: publish the other bytes as a new version"
            )

    def _published(self, model: str, version: int) -> tuple[ModelLocation, ManifestVersion]:
        """Return the location and manifest of a published version."""
        from botocore.exceptions import ClientError

        with as_source_error(f"version {version} of {model!r} could not be looked up"):
            location = ModelLocation(self._root, check_name(model))
            try:
                head = self._client.head_object(
                    Bucket=self._root.bucket, Key=location.manifest(version)
                )
            except ClientError as error:
                if not is_gone(error):
                    raise
                raise SourceError(
                    f"version {version} of {model!r} is not published: there is no "
                    f"{location.uri(location.manifest(version))}"
                ) from error
            return location, ManifestVersion(head["ETag"], head["LastModified"].timestamp())

    # --- small objects ----------------------------------------------------------------------------

    def _reads(self, found: ModelListing) -> list[Callable[[], object]]:
        """Return the calls that read the small objects for `_model`."""
        reads: list[Callable[[], object]] = [
            partial(self._stamp, found.location, number, one.etag)
            for number, one in found.published.items()
        ]
        if found.aliases:
            reads.append(partial(self._aliases, found.location, found.aliases))
        return reads

    def _read_manifest(self, location: ModelLocation, version: int, etag: str) -> _Stamp:
        key = location.manifest(version)
        try:
            content, _ = read_small(self._client, location, key, etag, MAX_MANIFEST_BYTES)
            manifest = Manifest.parse(content.decode())
            if "MLmodel" not in manifest.files:
                raise ValueError("it has no MLmodel")  # noqa: TRY301 - as the parser raises
            return _Stamp(manifest.digest)
        except (ValueError, UnsafePathError) as error:
            problem = (
                f"the stamp of version {version} cannot be read, so its bytes cannot be checked, "
                f"and it does not serve: {location.uri(key)} is not a manifest: {error}"
            )
            return _Stamp(None, problem)

    def _read_aliases(self, location: ModelLocation, etag: str) -> _Aliases:
        try:
            content, _ = read_small(
                self._client, location, location.aliases, etag, MAX_ALIASES_BYTES
            )
            return _Aliases(parse_aliases(content))
        except ValueError as error:
            uri = location.uri(location.aliases)
            problem = f"the aliases stay as they are: {uri} cannot be read: {error}"
            return _Aliases(problem=problem)

    # --- models -----------------------------------------------------------------------------------

    def _model(self, found: ModelListing) -> AspiredModel:
        stamps = {
            number: self._stamp(found.location, number, one.etag)
            for number, one in found.published.items()
        }
        aliases = self._aliases(found.location, found.aliases) if found.aliases else _Aliases()
        return _model(found, stamps, aliases, self._latest)


def _side_by_side(calls: Iterable[Callable[[], _Answer]], give_up_at: float) -> Iterator[_Answer]:
    """Yield the results of calls, in order; several calls run at a time."""
    answers = parts_in_order(calls, lambda call, _cancelled: (call(),), at_once=_CALLS_AT_ONCE)
    with closing(answers):
        for _, answer in answers:
            if answer is not None:
                yield answer[0]
            else:
                _give_up(give_up_at)


def _give_up(at: float) -> None:
    if time.monotonic() > at:
        raise SourceError(f"S3 did not answer within {_LISTING_LIMIT_S:.0f} s")


def _check(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise SourceError("the listing was cancelled")


def _named(found: Iterable[ModelListing]) -> tuple[list[ModelListing], list[str]]:
    """Return the folders with publications, and why others are ignored."""
    listings, problems = [], []
    for one in found:
        try:
            check_name(one.location.model)
        except InvalidReferenceError as error:
            problems.append(f"the folder {one.location.model!r} is ignored: {error}")
            continue
        if one.published or one.aliases:
            listings.append(one)
    return listings, problems


def _model(
    found: ModelListing, stamps: Mapping[int, _Stamp], aliases: _Aliases, latest: LatestPolicy
) -> AspiredModel:
    """Return one model with its versions, unreadable manifests included, and followed aliases."""
    versions = {
        number: _version(found.location, number, one, stamps[number])
        for number, one in sorted(found.published.items())
    }
    statuses = dict.fromkeys(versions, READY)
    if aliases.problem is not None and latest == "without_aliases":
        latest = "never"  # not known: the node keeps `latest` as it is, like every other alias
    followed, unfollowed, problems = read_aliases(aliases.targets, statuses, latest)
    return AspiredModel(
        name=found.location.model,
        versions=versions,
        aliases=followed,
        unfollowed=frozenset(unfollowed),
        unready=frozenset(found.published).difference(versions),
        aliases_known=aliases.problem is None,
        problems=(*found.problems, *filter(None, [aliases.problem]), *problems),
    )


def _version(
    location: ModelLocation, number: int, published: ManifestVersion, stamp: _Stamp
) -> AspiredVersion:
    return AspiredVersion(
        model=location.model,
        version=number,
        location=location.uri(location.files(number)),
        expected_digest=stamp.digest,
        created_at=published.written_at,
        stamp_fixed=True,
        problems=(stamp.problem,) if stamp.problem else (),
        stamp_problem=stamp.problem,
    )
