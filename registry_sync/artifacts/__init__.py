"""Artifacts on this node: manifest, verification, description, and the store that keeps them."""

from registry_sync.artifacts.description import check_complete, describe
from registry_sync.artifacts.environments import (
    BuildLimits,
    BuildsEnvironments,
    DependencyVerdict,
    Environments,
    OnMismatch,
    OwnEnvironment,
    Verdict,
    judge,
)
from registry_sync.artifacts.manifest import UNSTORED_FILES, Fetched, Manifest, check_paths
from registry_sync.artifacts.store import (
    ArtifactStore,
    Pin,
    StoredArtifact,
    StoreUse,
    pinned_version,
)
from registry_sync.artifacts.verify import Verification, verify

__all__ = [
    "UNSTORED_FILES",
    "ArtifactStore",
    "BuildLimits",
    "BuildsEnvironments",
    "DependencyVerdict",
    "Environments",
    "Fetched",
    "Manifest",
    "OnMismatch",
    "OwnEnvironment",
    "Pin",
    "StoreUse",
    "StoredArtifact",
    "Verdict",
    "Verification",
    "check_complete",
    "check_paths",
    "describe",
    "judge",
    "pinned_version",
    "verify",
]
