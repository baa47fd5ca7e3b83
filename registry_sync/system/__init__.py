"""The control plane's process: threads, priority, metrics, damaged files, faults."""

from gateway.system.files import DamagedFile as DamagedFile, DamagedFiles as DamagedFiles
from registry_sync.system.metrics import (
    METRICS as METRICS,
    registry_calls as registry_calls,
    store_budget_bytes as store_budget_bytes,
    store_bytes as store_bytes,
)
from registry_sync.system.model_faults import ModelFaults as ModelFaults
from registry_sync.system.node_processes import NodeProcesses as NodeProcesses
from registry_sync.system.supervised import (
    is_being_cancelled as is_being_cancelled,
    run_forever as run_forever,
)
from registry_sync.system.threads import StoppedError as StoppedError, Threads as Threads
