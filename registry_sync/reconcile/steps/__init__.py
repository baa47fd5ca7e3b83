"""Steps of a change, each a task: fetch, environment, stage, activate, retire."""

from registry_sync.reconcile.steps.backoff import Backoff, Failure
from registry_sync.reconcile.steps.damaged_copies import Copies
from registry_sync.reconcile.steps.environment import EnvironmentStep
from registry_sync.reconcile.steps.executor import Executor
from registry_sync.reconcile.steps.fetch import FetchStep, Progress
from registry_sync.reconcile.steps.ingestion import Ingestion
from registry_sync.reconcile.steps.promotion import Promotion
from registry_sync.reconcile.steps.runner import Steps

__all__ = [
    "Backoff",
    "Copies",
    "EnvironmentStep",
    "Executor",
    "Failure",
    "FetchStep",
    "Ingestion",
    "Progress",
    "Promotion",
    "Steps",
]
