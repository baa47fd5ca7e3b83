"""The process of the control plane: threads, priority, metrics, damaged files and faults."""

from registry_sync.system.damaged_files import DamagedFile, DamagedFiles
from registry_sync.system.metrics import METRICS, registry_calls, show_store
from registry_sync.system.model_faults import Faults
from registry_sync.system.supervised import is_being_cancelled, without_end
from registry_sync.system.threads import StoppedError, Threads

__all__ = [
    "METRICS",
    "DamagedFile",
    "DamagedFiles",
    "Faults",
    "StoppedError",
    "Threads",
    "is_being_cancelled",
    "registry_calls",
    "show_store",
    "without_end",
]
