"""The way of a request: admission, resolution, dispatch, resident set, replicas, supervision."""

from gateway.serving.admission import Admission, BufferedBytes, Slot
from gateway.serving.call import Call
from gateway.serving.dispatch import Dispatcher
from gateway.serving.kept_proofs import KeptProofs
from gateway.serving.load_orders import LoadOrders, WorkerLimits, cuda_devices
from gateway.serving.replica import (
    MARK,
    ExecLauncher,
    ForkserverLauncher,
    Launchers,
    Life,
    Replica,
    ReplicaLimits,
    WorkerReply,
    end_leftovers,
)
from gateway.serving.residency import (
    LEAST_LOADS_AT_ONCE,
    Observer,
    Resident,
    ResidentLimits,
    ResidentSet,
)
from gateway.serving.supervision import Supervisor

__all__ = [
    "LEAST_LOADS_AT_ONCE",
    "MARK",
    "Admission",
    "BufferedBytes",
    "Call",
    "Dispatcher",
    "ExecLauncher",
    "ForkserverLauncher",
    "KeptProofs",
    "Launchers",
    "Life",
    "LoadOrders",
    "Observer",
    "Replica",
    "ReplicaLimits",
    "Resident",
    "ResidentLimits",
    "ResidentSet",
    "Slot",
    "Supervisor",
    "WorkerLimits",
    "WorkerReply",
    "cuda_devices",
    "end_leftovers",
]
