"""The way of a request: admission, dispatch, the resident set, replicas and their supervision."""

from gateway.serving.admission import Admission, Held, Place
from gateway.serving.dispatch import Call, Dispatcher
from gateway.serving.kept_proofs import Proofs
from gateway.serving.load_orders import Versions, WorkerLimits, cuda_devices
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
    "Call",
    "Dispatcher",
    "ExecLauncher",
    "ForkserverLauncher",
    "Held",
    "Launchers",
    "Life",
    "Observer",
    "Place",
    "Proofs",
    "Replica",
    "ReplicaLimits",
    "Resident",
    "ResidentLimits",
    "ResidentSet",
    "Supervisor",
    "Versions",
    "WorkerLimits",
    "WorkerReply",
    "cuda_devices",
    "end_leftovers",
]
