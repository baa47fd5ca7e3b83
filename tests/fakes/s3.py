"""An S3 storage in memory: what the product asks of boto3's client, and how it can go wrong."""

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

_PAGE = 1000


@dataclass(frozen=True)
class Stored:
    content: bytes
    written_at: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


@dataclass
class FakeS3:
    """A bucket of any name. Any thread.

    ``conditions``: ``"kept"``; ``"ignored"``, as some storages do; or ``"unknown"``: answered 501.
    ``before`` is called before each request with its name and key: it may change the bucket, or
    raise. ``bodies`` makes the body of a ``get_object`` out of its bytes.
    """

    conditions: str = "kept"
    page: int = _PAGE
    objects: dict[str, Stored] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda _name, _key: None
    bodies: Callable[[bytes], Any] = io.BytesIO
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    _lock: Any = field(default_factory=threading.RLock)

    # --- what a test does -------------------------------------------------------------------------

    def put(self, key: str, content: bytes) -> None:
        self.objects[key] = Stored(content, self.now)

    def count(self, name: str) -> int:
        """How often something was asked."""
        return sum(asked == name for asked, _ in self.asked)

    # --- boto3's client ---------------------------------------------------------------------------

    def list_objects_v2(
        self,
        *,
        Bucket: str,  # noqa: N803 - boto3's word, here and below
        Prefix: str,  # noqa: N803
        Delimiter: str = "",  # noqa: N803
        ContinuationToken: str = "",  # noqa: N803
        StartAfter: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        self._note("list_objects_v2", Prefix)
        rows: dict[str, dict[str, Any]] = {}
        for key, stored in sorted(self.objects.items()):
            if not key.startswith(Prefix):
                continue
            head, cut, _ = key.removeprefix(Prefix).partition(Delimiter or "\0")
            if cut:
                rows[Prefix + head + cut] = {"Prefix": Prefix + head + cut}
            else:
                rows[key] = {"Key": key} | _facts(stored) | {"Size": len(stored.content)}
        names = [name for name in sorted(rows) if name > max(ContinuationToken, StartAfter)]
        shown = [rows[name] for name in names[: self.page]]
        return {
            "Contents": [row for row in shown if "Key" in row],
            "CommonPrefixes": [row for row in shown if "Key" not in row],
            "IsTruncated": len(names) > self.page,
            "NextContinuationToken": names[: self.page][-1] if names else "",
            "ResponseMetadata": {"HTTPHeaders": {"date": self.now.strftime(_HTTP_DATE)}},
        }

    def get_paginator(self, name: str) -> "FakeS3":
        assert name == "list_objects_v2"
        return self

    def paginate(self, **options: str) -> Any:
        token: dict[str, str] = {}
        while True:
            page = self.list_objects_v2(**options, **token)
            yield page
            if not page["IsTruncated"]:
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        self._note("head_object", Key)
        return _facts(self._stored(Key, "404"))

    def get_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        IfMatch: str | None = None,  # noqa: N803
        Range: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        self._note("get_object", Key)
        stored = self._stored(Key, "NoSuchKey")
        if IfMatch is not None and IfMatch != stored.etag:
            raise refusal("PreconditionFailed")
        content, facts = stored.content, _facts(stored)
        if Range is not None:
            first, _, last = Range.removeprefix("bytes=").partition("-")
            facts["ContentRange"] = f"bytes {first}-{last}/{len(content)}"
            content = content[int(first) : int(last) + 1]
        return facts | {"Body": self.bodies(content), "ContentLength": len(content)}

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Body: bytes,  # noqa: N803
        IfMatch: str | None = None,  # noqa: N803
        IfNoneMatch: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        self._note("put_object", Key)
        with self._lock:
            if (IfMatch or IfNoneMatch) and self.conditions == "unknown":
                raise refusal("NotImplemented")
            if self.conditions == "kept":
                here = self.objects.get(Key)
                if IfNoneMatch == "*" and here is not None:
                    raise refusal("PreconditionFailed")
                if IfMatch is not None and (here is None or here.etag != IfMatch):
                    raise refusal("PreconditionFailed" if here else "NoSuchKey")
            self.put(Key, Body)
            return {"ETag": self.objects[Key].etag}

    def upload_file(
        self,
        Filename: str,  # noqa: N803
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        *,
        Callback: Callable[[int], None],  # noqa: N803
        Config: object = None,  # noqa: N803
    ) -> None:
        self._note("upload_file", Key)
        content = Path(Filename).read_bytes()
        self.put(Key, content)
        Callback(len(content))

    def _note(self, name: str, key: str) -> None:
        with self._lock:
            self.asked.append((name, key))
        self.before(name, key)

    def _stored(self, key: str, code: str) -> Stored:
        if key not in self.objects:
            raise refusal(code)
        return self.objects[key]


_HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


def refusal(code: str) -> ClientError:
    """What botocore raises where a storage answers with an error."""
    return ClientError({"Error": {"Code": code, "Message": code}}, "Any")


def _facts(stored: Stored) -> dict[str, Any]:
    return {"ETag": stored.etag, "LastModified": stored.written_at}
