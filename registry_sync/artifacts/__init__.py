"""Artifacts on this node: manifest, verification, description, and the store that keeps them."""

from registry_sync.artifacts.description import check_complete, describe
from registry_sync.artifacts.environments import (
    BuildLimits,
    BuildsEnvironments,
    DependencyVerdict,
    Environments,
    MismatchPolicy,
    OwnEnvironment,
    Verdict,
    judge,
)
from registry_sync.artifacts.manifest import UNSTORED_FILES, FetchedArtifact, Manifest, check_paths
from registry_sync.artifacts.store import (
    Acceptance,
    ArtifactStore,
    StoredArtifact,
    StoreUse,
    accepted_digest,
)
from registry_sync.artifacts.verify import Verification, verify

__all__ = [
    "UNSTORED_FILES",
    "Acceptance",
    "ArtifactStore",
    "BuildLimits",
    "BuildsEnvironments",
    "DependencyVerdict",
    "Environments",
    "FetchedArtifact",
    "Manifest",
    "MismatchPolicy",
    "OwnEnvironment",
    "StoreUse",
    "StoredArtifact",
    "Verdict",
    "Verification",
    "accepted_digest",
    "check_complete",
    "check_paths",
    "describe",
    "judge",
    "verify",
]
