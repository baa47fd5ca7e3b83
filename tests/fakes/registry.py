"""A registry and its storage in memory. Bad worlds are one line: ``registry.tamper("m", 1)``."""

import hashlib
import json
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.contract.references import LATEST
from registry_sync.artifacts.manifest import FetchedArtifact, Manifest
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.errors import IncompleteArtifactError, SourceError
from registry_sync.sources.storage.fetcher import OnProgress, Reserve

MLMODEL = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    data: data\n"


SPOILED = b"["


@dataclass
class FakeRegistry:
    """A `Source`, and the storage behind it. Any thread.

    ``marks_creations`` is what MLflow does, and S3 does not; ``registered_at`` is when versions
    are made from now on, None: the registry does not tell; ``down`` makes every call fail,
    ``lists_nothing`` those that compare; ``tells_listings`` False
    is a storage without ETag and time;
    ``hold_fetches`` makes fetches of a model, or of one URI, wait until it is set; ``fetch_error``
    fails them before that, ``late_error`` after it; ``whole`` and ``stable`` say whether registry
    and storage know that uploads are done.
    """

    marks_creations: bool = True
    registered_at: float | None = None
    down: bool = False
    lists_nothing: bool = False
    tells_listings: bool = True
    now: float = 1000.0
    models: dict[str, AspiredModel] = field(default_factory=dict)
    made_anew: int = 0
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    listed: int = 0
    thorough: int = 0
    asked: list[str] = field(default_factory=list)
    hold_fetches: dict[str, threading.Event] = field(default_factory=dict)
    fetch_error: Exception | None = None
    late_error: Exception | None = None
    whole: bool = True
    stable: bool = True

    # --- what an ML engineer does -----------------------------------------------------------------

    def publish(
        self,
        model: str,
        version: int,
        *,
        stamp: str | None = None,
        size_bytes: int = 0,
        latest: bool = True,
    ) -> str:
        """Register a version, of at least ``size_bytes`` in all; its digest."""
        digest = self._register(model, version, f"fake:/{model}/{version}", stamp, size_bytes)
        if not latest:
            self.without_latest(model)
        return digest

    def make_anew(self, model: str, version: int, *, stamp: bool = False) -> str:
        """Register a version that was deleted, with other bytes at another place; its digest."""
        self.made_anew += 1
        digest = self._register(model, version, f"fake:/{model}/{version}/{self.made_anew}")
        if stamp:
            self.stamp(model, version, digest)
        return digest

    def _register(
        self, model: str, version: int, uri: str, stamp: str | None = None, size_bytes: int = 0
    ) -> str:
        weights = uri.encode().ljust(size_bytes - len(MLMODEL), b".")
        self.files[uri] = {"MLmodel": MLMODEL.encode(), "data/weights": weights}
        known = self.models.get(model, AspiredModel(name=model, versions={}))
        versions = {
            **known.versions,
            version: AspiredVersion(
                model,
                version,
                location=uri,
                expected_digest=stamp,
                created_at=self.registered_at,
                creation=uri if self.marks_creations else None,
                stamp_fixed=not self.marks_creations,
            ),
        }
        aliases = {**known.aliases, LATEST: max(versions)}
        self.models[model] = replace(
            known, versions=versions, aliases=aliases, unready=known.unready - {version}
        )
        return self.digest(model, version)

    def sign(self, model: str, version: int, *columns: str) -> None:
        """Give a version, before it is fetched, a signature with these columns of numbers."""
        inputs = [{"type": "double", "name": name, "required": True} for name in columns]
        signature = f"signature:\n  inputs: '{json.dumps(inputs)}'\n"
        self._stored(model, version)["MLmodel"] += signature.encode()

    def point(self, model: str, alias: str, version: int) -> None:
        known = self.models[model]
        self.models[model] = replace(known, aliases={**known.aliases, alias: version})

    def unpoint(self, model: str, alias: str) -> None:
        known = self.models[model]
        aliases = {name: version for name, version in known.aliases.items() if name != alias}
        self.models[model] = replace(known, aliases=aliases)

    def without_latest(self, model: str) -> None:
        """Leave ``latest`` out, where a test is about one alias."""
        self.unpoint(model, LATEST)

    def tamper(self, model: str, version: int) -> None:
        self._stored(model, version)["data/weights"] += b" altered"

    def spoil(self, model: str, version: int) -> None:
        """Make a version unreadable as an artifact."""
        self._stored(model, version)["MLmodel"] = SPOILED

    def is_spoiled(self, model: str, version: int) -> bool:
        return self._stored(model, version)["MLmodel"] == SPOILED

    def forget(self, model: str) -> None:
        del self.models[model]

    def remove(self, model: str, version: int) -> None:
        """Delete a version, and the aliases that point at it."""
        known = self.models[model]
        versions = {n: one for n, one in known.versions.items() if n != version}
        aliases = {name: n for name, n in known.aliases.items() if n != version}
        self.models[model] = replace(known, versions=versions, aliases=aliases)

    def unfollow(self, model: str, alias: str) -> None:
        """Point an alias at a version that is not ready."""
        self.unpoint(model, alias)
        known = self.models[model]
        self.models[model] = replace(known, unfollowed=known.unfollowed | {alias})

    def leave_out(self, model: str, version: int) -> None:
        """Let the registry have a version that cannot be read, nor the aliases followed to it."""
        pointing = {name for name, n in self.models[model].aliases.items() if n == version}
        self.remove(model, version)
        known = self.models[model]
        self.models[model] = replace(
            known, unfollowed=known.unfollowed | pointing, unready=known.unready | {version}
        )

    def rename(self, model: str, name: str) -> None:
        """Give a model another name: its versions stay the creations that they are."""
        known = self.models.pop(model)
        versions = {n: replace(one, model=name) for n, one in known.versions.items()}
        self.models[name] = replace(known, name=name, versions=versions)

    def digest(self, model: str, version: int) -> str:
        """The digest of what is stored now."""
        return _manifest(self._stored(model, version)).digest

    def _stored(self, model: str, version: int) -> dict[str, bytes]:
        return self.files[self.models[model].versions[version].location]

    # --- Source -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "the registry at fake:/"

    def aspired(self, before: Aspired | None = None) -> Aspired:
        self._answer()
        self.listed += 1
        self.thorough += before is None
        return Aspired(models=dict(self.models), listed_at=self.now)

    def model(self, name: str) -> AspiredModel | None:
        self._answer()
        self.asked.append(name)
        return self.models.get(name)

    def version(self, model: str, version: int) -> AspiredVersion:
        self._answer()
        try:
            return self.models[model].versions[version]
        except KeyError as error:
            raise SourceError(f"there is no version {version} of {model}") from error

    def locate(self, model: str, version: int) -> str:
        return self.version(model, version).location

    def is_whole(self, version: AspiredVersion) -> bool:
        return self.whole

    def stamp(self, model: str, version: int, digest: str) -> None:
        known = self.version(model, version)
        versions = {
            **self.models[model].versions,
            version: replace(known, expected_digest=digest),
        }
        self.models[model] = replace(self.models[model], versions=versions)

    # --- the storage ------------------------------------------------------------------------------

    def remote_listing(self, uri: str, *, on_progress: OnProgress | None = None) -> str | None:
        self._answer()
        if self.lists_nothing:
            raise SourceError("the storage does not answer")
        return _manifest(self.files[uri]).digest if self.tells_listings else None

    def fetch(
        self,
        uri: str,
        into: Path,
        *,
        judged: bool = False,
        on_progress: OnProgress | None = None,
        reserve: Reserve | None = None,
    ) -> FetchedArtifact:
        self._answer()
        if not (judged or self.stable):
            raise IncompleteArtifactError("the upload may be unfinished")
        if self.fetch_error is not None:
            raise self.fetch_error
        size = sum(map(len, self.files[uri].values()))
        if reserve:
            reserve(size)
        gate = self.hold_fetches.get(uri) or self.hold_fetches.get(uri.split("/")[1])
        while gate is not None and not gate.wait(0.01):
            if on_progress:
                on_progress(size // 2, size)
        if self.late_error is not None:
            raise self.late_error
        self.fetched.append(uri)
        for path, content in self.files[uri].items():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            (into / path).write_bytes(content)
        if on_progress:
            on_progress(size, size)
        return FetchedArtifact(
            into, _manifest(self.files[uri]), size, self.remote_listing(uri), self.stable
        )

    def _answer(self) -> None:
        if self.down:
            raise SourceError("the registry does not answer")


def _manifest(files: dict[str, bytes]) -> Manifest:
    return Manifest.of({path: hashlib.sha256(data).hexdigest() for path, data in files.items()})
