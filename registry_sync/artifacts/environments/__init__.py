"""Environments of models that need libraries of their own: recipe, installation, store."""

from registry_sync.artifacts.environments.compatibility import (
    DependencyVerdict,
    OnMismatch,
    Verdict,
    judge,
)
from registry_sync.artifacts.environments.installer import BuildLimits
from registry_sync.artifacts.environments.recipe import OwnEnvironment
from registry_sync.artifacts.environments.store import BuildsEnvironments, Environments

__all__ = [
    "BuildLimits",
    "BuildsEnvironments",
    "DependencyVerdict",
    "Environments",
    "OnMismatch",
    "OwnEnvironment",
    "Verdict",
    "judge",
]
