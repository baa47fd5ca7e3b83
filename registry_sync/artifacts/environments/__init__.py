"""Environments of models that need libraries of their own: recipe, installation, store."""

from registry_sync.artifacts.environments.compatibility import (
    DependencyVerdict,
    MismatchPolicy,
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
    "MismatchPolicy",
    "OwnEnvironment",
    "Verdict",
    "judge",
]
