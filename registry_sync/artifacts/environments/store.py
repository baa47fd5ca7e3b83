"""Own environments of this node: virtual environments built by uv from models' requirements.

::

    <node_dir>/environments/<digest>/                  one complete environment
    <node_dir>/environments/<digest>/environment.json  its recipe
    <node_dir>/environments/aside/                     builds under way, on the same file system
    <node_dir>/environments/pythons/                   interpreters that uv fetched

uv installs wheels only, so the control plane runs no code of a model. uv runs an environment's
interpreter while it is still empty; afterwards only workers run it, because it runs the code of
installed ``.pth`` files. The build compiles all files, because a worker writes none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from registry_sync.artifacts import requirements_file
from registry_sync.artifacts.environments.recipe import OwnEnvironment, Recipe, read_recipe
from registry_sync.artifacts.environments.uv_job import BuildLimits, Check, Job, inherited
from registry_sync.artifacts.file_tree import make_folder, remove
from registry_sync.artifacts.store import StoredArtifact
from registry_sync.errors import EnvironmentFailedError, StoreError

_RECORD = "environment.json"
_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
_LOOK_EVERY_S = 0.5
_REMOVAL_TIMEOUT_S = 10.0
_REMOVAL_PAUSE_S = 0.1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = structlog.get_logger("registry_sync.artifacts.environments.store")


class BuildsEnvironments(Protocol):
    """Builds and finds the environments of a node; see `Environments`. Blocking."""

    def build(self, artifact: StoredArtifact, check: Check) -> OwnEnvironment:
        """Return the environment of an artifact; build it if it is missing."""
        ...

    def built(self, artifacts: Iterable[StoredArtifact]) -> dict[str, OwnEnvironment]:
        """Return the environments that are built, by the artifact's digest."""
        ...

    def sweep(self, artifacts: Iterable[StoredArtifact], *, older_than_s: float) -> list[str]:
        """Remove environments that no artifact needs; return their digests."""
        ...


class Environments:
    """Owns ``environments/`` of a node. One process; any thread.

    A kill at any moment does no harm: an incomplete environment is not used, and the next `open`
    removes it. ``installer`` is the path of uv; ``environ`` is the process's environment, of which
    uv gets the variables that `inherited` returns.
    """

    def __init__(
        self,
        node_dir: Path,
        *,
        installer: str,
        limits: BuildLimits,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = node_dir.absolute() / "environments"
        self._aside = self._folder / "aside"
        self._uv = installer
        self._limits = limits
        self._environ = {
            "UV_PYTHON_INSTALL_DIR": str(self._folder / "pythons"),
            **inherited(environ),
            "NO_COLOR": "1",
        }
        self._clock = clock
        self._changed = threading.Condition()
        self._busy: set[str] = set()

    def open(self) -> None:
        """Make the folders and remove unfinished builds. Call it once, at the start.

        An unfinished build that cannot be removed stays; it does no harm.

        Raises:
            StoreError: The folder cannot be used.
        """
        try:
            for folder in (self._folder, self._aside):
                make_folder(folder)
        except OSError as error:
            raise StoreError(f"{self._folder} cannot be used: {error.strerror}") from error
        give_up_at = time.monotonic() + _REMOVAL_TIMEOUT_S
        while (trouble := self._clear_aside()) is not None:
            if time.monotonic() > give_up_at or trouble.errno == errno.EROFS:
                _log.warning("leftover.kept", path=str(self._aside), reason=str(trouble))
                return
            # The installer of a killed control plane ends shortly after it, and may still write.
            time.sleep(_REMOVAL_PAUSE_S)

    def built(self, artifacts: Iterable[StoredArtifact]) -> dict[str, OwnEnvironment]:
        """Return the environments that are built, by the artifact's digest."""
        if not self._present():
            return {}
        found = ((one.digest, self._find(self._digest(one))) for one in artifacts)
        return {digest: environment for digest, environment in found if environment}

    def build(self, artifact: StoredArtifact, check: Check) -> OwnEnvironment:
        """Return the environment of an artifact; build it if it is missing.

        Equal recipes are built once, however many threads call this.

        Raises:
            EnvironmentFailedError: It cannot be built; ``transient`` if a retry may succeed.
        """
        with _as_failure():
            recipe = self._recipe(artifact)
        with self._alone(recipe.digest, check):
            found = self._find(recipe.digest)
            if found is None:
                with _as_failure():
                    found = self._build(recipe, check)
            with contextlib.suppress(OSError):  # the sweep spares what was used lately
                os.utime(self._folder / found.digest / _RECORD)
            return found

    def sweep(self, artifacts: Iterable[StoredArtifact], *, older_than_s: float) -> list[str]:
        """Remove environments that no artifact needs and that were not used lately.

        An environment stays as long as its artifact, whatever the tags are: a worker may run in it.
        """
        present = self._present()
        if not present:
            return []
        needed = {self._digest(one) for one in artifacts}
        return [
            digest for digest in present - needed if self._remove(digest, older_than_s=older_than_s)
        ]

    # --- the environments on the disk -------------------------------------------------------------

    def _present(self) -> set[str]:
        """Return the digests of all environments, complete or not."""
        with contextlib.suppress(OSError):
            return {one.name for one in self._folder.iterdir() if _DIGEST.fullmatch(one.name)}
        return set()

    def _find(self, digest: str | None) -> OwnEnvironment | None:
        """Return a complete environment whose interpreter can be run, or None."""
        if digest is None:
            return None
        folder = self._folder / digest
        python = folder / "bin" / "python"
        is_complete = _is_plain(folder / _RECORD) and not folder.is_symlink()
        if is_complete and os.access(python, os.X_OK):
            return OwnEnvironment(digest, str(python))
        return None

    def _digest(self, artifact: StoredArtifact) -> str | None:
        try:
            return self._recipe(artifact).digest
        except (EnvironmentFailedError, OSError):
            return None

    def _recipe(self, artifact: StoredArtifact) -> Recipe:
        if not artifact.path.is_dir():
            raise EnvironmentFailedError("its bytes are no longer here", transient=True)
        found = requirements_file.read(artifact.path)
        if found is None:
            raise EnvironmentFailedError(
                "it has no requirements.txt, so no environment of its own can be built; log it "
                "with requirements, or set the tag gateway.environment to shared"
            )
        return read_recipe(artifact.description.get("env_python"), found, here=_HERE)

    def _remove(self, digest: str, *, older_than_s: float) -> bool:
        """Move an environment aside in one step, then remove it."""
        folder = self._folder / digest
        with self._changed:
            try:
                marker = folder / _RECORD if os.path.lexists(folder / _RECORD) else folder
                young = self._clock() - marker.lstat().st_mtime < older_than_s
            except OSError:
                return False
            if young or digest in self._busy:
                return False
            with contextlib.suppress(OSError):
                folder.rename(self._new_aside() / "removed")
        self._empty_aside()
        return not folder.exists()

    # --- a build ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self, digest: str, check: Check) -> Iterator[None]:
        with self._changed:
            while digest in self._busy:
                self._changed.wait(_LOOK_EVERY_S)
                check()
            self._busy.add(digest)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(digest)
                self._changed.notify_all()

    def _build(self, recipe: Recipe, check: Check) -> OwnEnvironment:
        folder = self._new_aside()
        try:
            make, install = _calls(recipe, folder)
            limits, environ = self._limits, self._environ
            job = Job(self._uv, folder, limits=limits, environ=environ, check=check)
            job.install(make)
            # Resolve it now: an installed file may replace it.
            python = (folder / "environment" / "bin" / "python").resolve()
            job.install(install)
            job.compile(python, folder / "environment" / "lib")
            return self._move_in(recipe, folder)
        finally:
            with contextlib.suppress(OSError):
                remove(folder)

    def _move_in(self, recipe: Recipe, folder: Path) -> OwnEnvironment:
        """Give a finished environment its name, in one step."""
        environment, target = folder / "environment", self._folder / recipe.digest
        record = {**recipe.shown(), "built_at": self._clock()}
        (environment / _RECORD).write_text(json.dumps(record, indent=1))
        # The files must be on disk before the name that stands for a complete environment. For
        # 9,000 files this takes 0.2 s; to fsync each takes 20 s and delays other writers no less.
        os.sync()
        if os.path.lexists(target):  # incomplete, or its interpreter is missing
            target.rename(folder / "replaced")
        environment.rename(target)
        found = self._find(recipe.digest)
        if found is None:
            raise EnvironmentFailedError("the environment has no interpreter", transient=True)
        return found

    def _new_aside(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._aside))

    def _empty_aside(self) -> None:
        for one in self._aside.glob("*/removed"):
            with contextlib.suppress(OSError):
                remove(one.parent)

    def _clear_aside(self) -> OSError | None:
        """Remove unfinished builds; return the error that stopped it, or None."""
        try:
            for leftover in self._aside.iterdir():
                remove(leftover)
        except OSError as error:
            return error
        return None


def _is_plain(path: Path) -> bool:
    """Return True if a plain file, and not a link, is at the path."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _calls(recipe: Recipe, folder: Path) -> list[list[str]]:
    """Write the input of uv; return its arguments: make the environment, install into it."""
    environment = folder / "environment"
    lines = [*recipe.indexes, *recipe.requirements]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    (folder / "constraints.txt").write_text("\n".join(recipe.constraints) + "\n")
    python = sys.executable if recipe.python == _HERE else recipe.python
    install = [
        *("pip", "install", "--no-build", "--no-compile-bytecode", "--strict"),
        *("--python", str(environment / "bin" / "python")),
        *("--requirements", str(folder / "requirements.txt")),
        *("--constraints", str(folder / "constraints.txt")),
    ]
    if recipe.indexes:
        install += [
            "--index-strategy",
            "unsafe-best-match",
        ]  # as pip does
    make = ["venv", "--relocatable", "--no-project", "--python", python, str(environment)]
    return [make, install]


@contextlib.contextmanager
def _as_failure() -> Iterator[None]:
    """Raise an error of the disk as a transient failure of the build."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailedError(
            f"no environment could be built: {error}", transient=True
        ) from error
