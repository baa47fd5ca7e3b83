"""The layout of a registry in a bucket: keys, listings, and the two small objects of a model.

``<prefix>/<model>/<version>/…``      the files of an artifact
``<prefix>/<model>/<version>.manifest``   their manifest, written last, which publishes the version
``<prefix>/<model>/aliases.json``     the targets of the aliases: ``{"champion": 3}``
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.contract import InvalidReferenceError, parse_model_name, parse_version
from registry_sync.artifacts import check_paths
from registry_sync.errors import SourceError, UnsafePathError
from registry_sync.sources.storage import is_changed, is_gone

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

SCHEME = "s3://"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_ALIASES_BYTES = 2**20
_MANIFEST_SUFFIX = ".manifest"
_ALIASES = "aliases.json"
_MAX_PAGES = 100
_MAX_REGISTRY_PAGES = 10_000
_AFTER_ALL = "\U0010ffff"
"""The last Unicode character, which sorts after all others."""


class ChangedError(SourceError):
    """An object has changed since it was listed; list it again."""


@dataclass(frozen=True, slots=True)
class Root:
    """The location of a registry; ``prefix`` of every key is empty, or ends in ``/``."""

    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str) -> Root:
        """Return the root of ``s3://bucket/prefix``.

        Raises:
            InvalidReferenceError: The URI has no bucket.
        """
        bucket, _, path = uri.removeprefix(SCHEME).partition("/")
        if not uri.startswith(SCHEME) or not bucket:
            raise InvalidReferenceError(f"{uri!r} is not s3://bucket/prefix")
        path = path.strip("/")
        return cls(bucket, f"{path}/" if path else "")

    @classmethod
    def of(cls, tracking_uri: str) -> Root | None:
        """Return the root of a registry's URI, or None if it is not in S3."""
        try:
            return cls.at(tracking_uri)
        except InvalidReferenceError:
            return None

    @property
    def uri(self) -> str:
        """The URI, without a trailing slash."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """The location of one model; its name is part of the keys."""

    root: Root
    model: str

    @classmethod
    def at(cls, uri: str) -> ModelLocation:
        """Return the location of ``s3://bucket/prefix/model``.

        Raises:
            InvalidReferenceError: The URI is invalid; the message says why.
        """
        parent, _, model = uri.rstrip("/").rpartition("/")
        try:
            return cls(Root.at(parent), check_name(model))
        except InvalidReferenceError as error:
            raise InvalidReferenceError(
                f"{uri!r} is not s3://bucket/prefix/model: {error}"
            ) from error

    @property
    def folder(self) -> str:
        """The prefix of the model's keys."""
        return f"{self.root.prefix}{self.model}/"

    @property
    def aliases(self) -> str:
        """The key of the aliases."""
        return self.folder + _ALIASES

    def files(self, version: int) -> str:
        """Return the prefix of a version's files."""
        return f"{self.folder}{version}/"

    def manifest(self, version: int) -> str:
        """Return the key of a version's manifest."""
        return f"{self.folder}{version}{_MANIFEST_SUFFIX}"

    def uri(self, key: str) -> str:
        """Return the URI of a key or a prefix."""
        return f"{SCHEME}{self.root.bucket}/{key}".rstrip("/")


@dataclass(frozen=True, slots=True)
class ManifestVersion:
    """A manifest: its ETag, and the epoch seconds of its last write."""

    etag: str
    written_at: float


@dataclass(slots=True)
class ModelListing:
    """The content of a model's folder.

    Attributes:
        published: Versions with a manifest.
        uploads: Versions with files, published or not.
        aliases: ETag of the aliases' object, or None if it is missing.
        problems: Problems with manifests, as sentences for users.
    """

    location: ModelLocation
    published: dict[int, ManifestVersion] = field(default_factory=dict)
    uploads: set[int] = field(default_factory=set)
    aliases: str | None = None
    problems: list[str] = field(default_factory=list)


def check_name(model: str) -> str:
    """Return a model's name, if it can be part of a key.

    Raises:
        InvalidReferenceError: The name is invalid; the message says why.
    """
    try:
        check_paths([parse_model_name(model)])
    except UnsafePathError as error:
        raise InvalidReferenceError(f"as a model's name, {error}") from error
    return model


# --- listing --------------------------------------------------------------------------------------


def list_registry(client: S3Client, root: Root, check: Callable[[], object]) -> list[ModelListing]:
    """Return the content of every model's folder.

    One call lists a thousand objects of many models. The folder of a model with more objects is
    listed without the files of its versions. ``check`` is called before each call; an error from it
    ends the listing.

    Raises:
        SourceError: There are too many pages. botocore's own errors pass.
    """
    found: dict[str, ModelListing] = {}
    where: dict[str, Any] = {}
    for _ in range(_MAX_REGISTRY_PAGES):
        check()
        page = client.list_objects_v2(Bucket=root.bucket, Prefix=root.prefix, **where)
        names = _sort_in(found, root, page)
        if not page.get("IsTruncated"):
            return list(found.values())
        where = {"ContinuationToken": page["NextContinuationToken"]}
        if len(names) == 1:
            location = ModelLocation(root, names.pop())
            check()
            found[location.model] = list_model(client, location)
            where = {"StartAfter": location.folder + _AFTER_ALL}
    raise SourceError(f"{root.uri} has more than {_MAX_REGISTRY_PAGES} pages of objects")


def _sort_in(
    found: dict[str, ModelListing], root: Root, page: ListObjectsV2OutputTypeDef
) -> set[str]:
    """Add the objects of a page to ``found``; return the names of their folders."""
    names: set[str] = set()
    for each in page.get("Contents", []):
        model, slash, path = each["Key"].removeprefix(root.prefix).partition("/")
        if not slash:
            continue  # not in a folder
        names.add(model)
        listing = found.get(model)
        if listing is None:
            listing = found[model] = ModelListing(ModelLocation(root, model))
        folder, slash, _ = path.partition("/")
        if not slash:
            _add(listing, path, ManifestVersion(each["ETag"], each["LastModified"].timestamp()))
        elif (version := _number(folder)) is not None:
            listing.uploads.add(version)
    return names


def list_model(client: S3Client, location: ModelLocation) -> ModelListing:
    """Return the content of a model's folder.

    Raises:
        SourceError: There are too many pages. botocore's own errors pass.
    """
    found = ModelListing(location)
    for page in _pages(client, location.root, location.folder):
        for folder in page.get("CommonPrefixes", []):
            version = _number(folder.get("Prefix", "").removeprefix(location.folder)[:-1])
            if version is not None:
                found.uploads.add(version)
        for each in page.get("Contents", []):
            written_at = each["LastModified"].timestamp()
            name = each["Key"].removeprefix(location.folder)
            _add(found, name, ManifestVersion(each["ETag"], written_at))
    return found


def _add(found: ModelListing, name: str, what: ManifestVersion) -> None:
    """Add an object of a model's folder, if it is a manifest or the aliases."""
    if name == _ALIASES:
        found.aliases = what.etag
    elif name.endswith(_MANIFEST_SUFFIX):
        version = _number(name.removesuffix(_MANIFEST_SUFFIX))
        if version is None:
            found.problems.append(f"the manifest {name!r} is ignored: its name is not a version")
        else:
            found.published[version] = what


def _pages(client: S3Client, root: Root, prefix: str) -> Iterator[ListObjectsV2OutputTypeDef]:
    """Yield the pages of the objects and folders directly under a prefix."""
    token: dict[str, Any] = {}
    for _ in range(_MAX_PAGES):
        page = client.list_objects_v2(Bucket=root.bucket, Prefix=prefix, Delimiter="/", **token)
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
    raise SourceError(f"{SCHEME}{root.bucket}/{prefix} has more than {_MAX_PAGES} pages of objects")


def _number(text: str) -> int | None:
    """Return the version that ``text`` spells canonically, or None."""
    try:
        version = parse_version(text)
    except InvalidReferenceError:
        return None
    return version if str(version) == text else None


# --- small objects --------------------------------------------------------------------------------


def read_small(
    client: S3Client, location: ModelLocation, key: str, etag: str | None, limit: int
) -> tuple[bytes, str]:
    """Return the bytes, at most ``limit``, and the ETag of a small object of a model.

    Raises:
        ChangedError: The object is missing, or its ETag differs from ``etag``, if that is given.
        ValueError: The object is larger than ``limit``. botocore's own errors pass.
    """
    from botocore.exceptions import ClientError

    condition: dict[str, Any] = {"IfMatch": etag} if etag else {}
    try:
        answer = client.get_object(Bucket=location.root.bucket, Key=key, **condition)
    except ClientError as error:
        if is_gone(error) or is_changed(error):
            raise ChangedError(f"{location.uri(key)} changed while it was read") from error
        raise
    with closing(answer["Body"]) as body:
        content = body.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content, answer["ETag"]


def parse_aliases(content: bytes) -> dict[str, Any]:
    """Return the targets of the aliases, both unchecked.

    Raises:
        ValueError: The content is not a JSON object.
    """
    try:
        parsed = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(parsed, dict):
        raise ValueError('it is not a JSON object such as {"champion": 3}')  # noqa: TRY004 - as JSON's own
    return parsed
