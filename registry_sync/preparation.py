"""What a version runs under: the verdict on our libraries, and environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from registry_sync.actions import BuildEnvironment
from registry_sync.arrival import Stopped
from registry_sync.artifact_store import StoredArtifact
from registry_sync.dependencies import DependencyVerdict, OnMismatch, Verdict, judge
from registry_sync.environments import BuildsEnvironments
from registry_sync.errors import EnvironmentFailedError
from registry_sync.intake import Stopwatch
from registry_sync.journal import Journal
from registry_sync.ledger import Ledger
from registry_sync.recipe import OwnEnvironment
from registry_sync.records import Rejection
from registry_sync.threads import Threads

_log = structlog.get_logger("registry_sync.preparation")


class Preparation:
    """Judges what is shared, and builds what is a version's own. Event loop only.

    Attributes:
        built: The own environments that are built, by the digest of the artifact.
    """

    def __init__(
        self,
        *,
        environments: BuildsEnvironments,
        on_mismatch: OnMismatch,
        ledger: Ledger,
        journal: Journal,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self.built: Mapping[str, OwnEnvironment] = {}
        self._described: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        self._environments = environments
        self._on_mismatch = on_mismatch
        self._ledger = ledger
        self._journal = journal
        self._threads = threads
        self._clock = clock

    async def look(self, artifacts: Iterable[StoredArtifact]) -> None:
        """Learn which own environments are there: at the start, and after each sweep."""
        self.built = await self._threads.fetching(self._environments.built, list(artifacts))

    async def sweep(self, artifacts: Iterable[StoredArtifact], *, older_than_s: float) -> None:
        """Remove environments that no artifact means, and notice those that have gone."""
        present = list(artifacts)
        # Not where environments are built: builds may take all of those threads for long.
        for digest in await self._threads.fetching(
            self._environments.sweep, present, older_than_s=older_than_s
        ):
            _log.info("environment.removed", environment=digest)
        await self.look(present)

    # --- the shared environment -------------------------------------------------------------------

    def verdict(self, artifact: StoredArtifact) -> DependencyVerdict:
        """Judge what an artifact requires by what is installed here."""
        return judge(artifact.description.get("requirements") or (), self._on_mismatch)

    def described(self, artifacts: Mapping[str, StoredArtifact]) -> dict[str, Mapping[str, Any]]:
        """Return the descriptions of artifacts with the verdicts of now; made once each."""
        before = self._described
        self._described = {
            digest: before[digest]
            if digest in before and before[digest][0] is one.description
            else (one.description, self._describe(one))
            for digest, one in artifacts.items()
        }
        return {digest: described for digest, (_, described) in self._described.items()}

    def _describe(self, artifact: StoredArtifact) -> Mapping[str, Any]:
        verdict = self.verdict(artifact)
        return {**artifact.description, "dependency_verdict": verdict.as_body()}

    def refused(self, artifacts: Mapping[str, StoredArtifact]) -> dict[str, str]:
        """Return the digests of what may not be loaded beside our libraries, and why not."""
        if self._on_mismatch is not OnMismatch.REFUSE:
            return {}
        whys = {digest: self.refusal(one) for digest, one in artifacts.items()}
        return {digest: why for digest, why in whys.items() if why}

    def refusal(self, artifact: StoredArtifact) -> str | None:
        """Say why an artifact may not be loaded beside our libraries; None: it may."""
        verdict = self.verdict(artifact)
        return verdict.reason if verdict.status is Verdict.REFUSE else None

    # --- own environments -------------------------------------------------------------------------

    async def build(
        self, action: BuildEnvironment, artifact: StoredArtifact | None, watch: Stopwatch
    ) -> Stopped | None:
        """Build a version's own environment, or learn that it cannot be built."""
        if artifact is None:
            return Stopped("its bytes are no longer here")
        _log.info("environment.started", model=action.model, version=action.version)
        try:
            with watch.phase("environment"):
                found = await self._threads.building(
                    self._environments.build, artifact, self._threads.check_stopping
                )
        except EnvironmentFailedError as error:
            if error.transient:
                return Stopped(error.reason)
            await self._reject(action, error)
            return Stopped(error.reason, refused=True)
        self.built = {**self.built, artifact.digest: found}
        _log.info(
            "environment.complete",
            model=action.model,
            version=action.version,
            environment=found.digest,
        )
        return None

    async def _reject(self, action: BuildEnvironment, error: EnvironmentFailedError) -> None:
        await self._journal.write(
            self._ledger.reject,
            Rejection(
                model=action.model,
                version=action.version,
                digest=action.digest,
                failure=error.failure,
                reason=error.reason,
                at=self._clock(),
            ),
        )
