"""Artifacts on this node: manifest, verification, description, and the store that keeps them."""

from registry_sync.artifacts.description import (
    check_complete as check_complete,
    describe as describe,
)
from registry_sync.artifacts.environments import (
    BuildLimits as BuildLimits,
    BuildsEnvironments as BuildsEnvironments,
    DependencyVerdict as DependencyVerdict,
    Environments as Environments,
    MismatchPolicy as MismatchPolicy,
    OwnEnvironment as OwnEnvironment,
    Verdict as Verdict,
    judge as judge,
)
from registry_sync.artifacts.manifest import (
    UNSTORED_FILES as UNSTORED_FILES,
    FetchedArtifact as FetchedArtifact,
    Manifest as Manifest,
    check_paths as check_paths,
)
from registry_sync.artifacts.store import (
    Acceptance as Acceptance,
    ArtifactStore as ArtifactStore,
    StoredArtifact as StoredArtifact,
    StoreUse as StoreUse,
    accepted_digest as accepted_digest,
)
from registry_sync.artifacts.verify import Verification as Verification, verify as verify
