"""Own environments in memory: built at once, or failing as a test wants."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from registry_sync.artifacts.environments.recipe import OwnEnvironment
from registry_sync.artifacts.environments.uv_job import Check
from registry_sync.artifacts.store import StoredArtifact


@dataclass
class FakeEnvironments:
    """A `BuildsEnvironments`. ``error`` is what builds end with; ``asked`` counts them."""

    error: Exception | None = None
    asked: int = 0
    there: dict[str, OwnEnvironment] = field(default_factory=dict)

    def build(self, artifact: StoredArtifact, check: Check) -> OwnEnvironment:
        self.asked += 1
        check()
        if self.error is not None:
            raise self.error
        found = OwnEnvironment(artifact.digest[-8:], f"/environments/{artifact.digest[-8:]}/python")
        return self.there.setdefault(artifact.digest, found)

    def built(self, artifacts: Iterable[StoredArtifact]) -> dict[str, OwnEnvironment]:
        return {a.digest: self.there[a.digest] for a in artifacts if a.digest in self.there}

    def sweep(self, artifacts: Iterable[StoredArtifact], *, older_than_s: float) -> list[str]:
        gone = self.there.keys() - {artifact.digest for artifact in artifacts}
        return [self.there.pop(digest).digest for digest in gone]
