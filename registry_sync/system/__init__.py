"""The control plane's process: threads, priority, metrics, damaged files, faults."""

from gateway.system.files import DamagedFile, DamagedFiles
from registry_sync.system.metrics import METRICS, registry_calls, set_store_gauges
from registry_sync.system.model_faults import ModelFaults
from registry_sync.system.supervised import is_being_cancelled, run_forever
from registry_sync.system.threads import StoppedError, Threads

__all__ = [
    "METRICS",
    "DamagedFile",
    "DamagedFiles",
    "ModelFaults",
    "StoppedError",
    "Threads",
    "is_being_cancelled",
    "registry_calls",
    "run_forever",
    "set_store_gauges",
]
