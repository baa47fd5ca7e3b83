"""Judges the shared environment for versions, and builds own environments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from registry_sync.artifacts import (
    BuildsEnvironments,
    DependencyVerdict,
    MismatchPolicy,
    OwnEnvironment,
    StoredArtifact,
    Verdict,
    judge,
)
from registry_sync.domain import Rejection
from registry_sync.errors import EnvironmentFailedError
from registry_sync.planning import BuildEnvironment
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch

_log = structlog.get_logger("registry_sync.reconcile.steps.environment")


@dataclass
class EnvironmentStep:
    """Judges the shared environment, and builds own ones. Event loop only.

    Attributes:
        built: The own environments of this node, by the digest of the artifact.
    """

    context: Context
    environments: BuildsEnvironments
    built: Mapping[str, OwnEnvironment] = field(default_factory=dict)
    _described: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=dict)

    async def look(self, artifacts: Iterable[StoredArtifact]) -> None:
        """Read which own environments are built, at the start and after each sweep."""
        self.built = await self.context.threads.fetching(self.environments.built, list(artifacts))

    async def sweep(self, artifacts: Iterable[StoredArtifact], *, older_than_s: float) -> None:
        """Remove environments that no artifact needs, and update `built`."""
        present = list(artifacts)
        # Not in the threads of builds, which may occupy all of them for long.
        for digest in await self.context.threads.fetching(
            self.environments.sweep, present, older_than_s=older_than_s
        ):
            _log.info("environment.removed", environment=digest)
        for digest in self._described.keys() - {one.digest for one in present}:
            del self._described[digest]
        await self.look(present)

    # --- the shared environment -------------------------------------------------------------------

    def verdict(self, artifact: StoredArtifact) -> DependencyVerdict:
        """Return the verdict on an artifact's requirements in the shared environment."""
        described = artifact.description
        return judge(
            described.get("requirements") or (),
            self.context.policy.on_mismatch,
            python=described.get("env_python"),
        )

    def described(self, artifact: StoredArtifact) -> Mapping[str, Any]:
        """Return the description of an artifact with its verdict; cached."""
        known = self._described.get(artifact.digest)
        if known is None or known[0] is not artifact.description:
            verdict = self.verdict(artifact).as_body()
            described = {**artifact.description, "dependency_verdict": verdict}
            known = self._described[artifact.digest] = (artifact.description, described)
        return known[1]

    def refused(self, artifacts: Iterable[StoredArtifact]) -> dict[str, str]:
        """Return the digests that the shared environment must not load, with reasons."""
        if self.context.policy.on_mismatch is not MismatchPolicy.REFUSE:
            return {}
        verdicts = {one.digest: self.verdict(one) for one in artifacts}
        return {
            digest: one.reason for digest, one in verdicts.items() if one.status is Verdict.REFUSE
        }

    # --- own environments -------------------------------------------------------------------------

    async def build(
        self, action: BuildEnvironment, artifact: StoredArtifact | None, watch: Stopwatch
    ) -> StepFailure | None:
        """Build a version's own environment, or record that it cannot be built."""
        if artifact is None:
            return StepFailure("the artifact is no longer on this node")
        _log.info("environment.started", model=action.model, version=action.version)
        try:
            with watch.phase("environment"):
                found = await self.context.threads.building(
                    self.environments.build, artifact, self.context.threads.check_stopping
                )
        except EnvironmentFailedError as error:
            if error.transient:
                return StepFailure(error.reason)
            rejection = Rejection(
                model=action.model,
                version=action.version,
                digest=action.digest,
                failure=error.failure,
                reason=error.reason,
                at=self.context.clock(),
                own=True,
            )
            work = self.context.ledger.reject
            await self.context.journal.write(action.model, work, rejection)
            return StepFailure(error.reason, refused=True)
        self.built = {**self.built, artifact.digest: found}
        _log.info(
            "environment.completed",
            model=action.model,
            version=action.version,
            environment=found.digest,
        )
        return None
