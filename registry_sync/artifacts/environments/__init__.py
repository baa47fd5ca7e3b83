"""Environments of models that need libraries of their own: recipe, installation, store."""

from registry_sync.artifacts.environments.compatibility import (
    DependencyVerdict as DependencyVerdict,
    MismatchPolicy as MismatchPolicy,
    Verdict as Verdict,
    judge as judge,
)
from registry_sync.artifacts.environments.recipe import OwnEnvironment as OwnEnvironment
from registry_sync.artifacts.environments.store import (
    BuildsEnvironments as BuildsEnvironments,
    Environments as Environments,
)
from registry_sync.artifacts.environments.uv_job import BuildLimits as BuildLimits
