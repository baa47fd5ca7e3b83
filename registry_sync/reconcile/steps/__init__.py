"""Steps of a change, each a task: fetch, environment, stage, activate, retire."""

from registry_sync.reconcile.steps.backoff import Backoff as Backoff
from registry_sync.reconcile.steps.damaged_copies import Copies as Copies
from registry_sync.reconcile.steps.environment import EnvironmentStep as EnvironmentStep
from registry_sync.reconcile.steps.executor import Executor as Executor
from registry_sync.reconcile.steps.fetch import FetchStep as FetchStep
from registry_sync.reconcile.steps.ingestion import Ingestion as Ingestion
from registry_sync.reconcile.steps.promotion import Promotion as Promotion
from registry_sync.reconcile.steps.runner import Steps as Steps
