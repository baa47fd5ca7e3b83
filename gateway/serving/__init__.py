"""The way of a request: admission, resolution, dispatch, resident set, replicas, supervision."""

from gateway.serving.admission import (
    Admission as Admission,
    BufferedBytes as BufferedBytes,
    Slot as Slot,
)
from gateway.serving.call import Call as Call
from gateway.serving.dispatch import Dispatcher as Dispatcher
from gateway.serving.kept_proofs import KeptProofs as KeptProofs
from gateway.serving.load_orders import (
    LoadOrders as LoadOrders,
    WorkerLimits as WorkerLimits,
    cuda_devices as cuda_devices,
)
from gateway.serving.replica import (
    MARK as MARK,
    ExecLauncher as ExecLauncher,
    ForkserverLauncher as ForkserverLauncher,
    Launchers as Launchers,
    Life as Life,
    Replica as Replica,
    ReplicaLimits as ReplicaLimits,
    WorkerReply as WorkerReply,
    end_leftovers as end_leftovers,
)
from gateway.serving.residency import (
    LEAST_LOADS_AT_ONCE as LEAST_LOADS_AT_ONCE,
    Observer as Observer,
    ReplicaPool as ReplicaPool,
    Resident as Resident,
    ResidentLimits as ResidentLimits,
    ResidentSet as ResidentSet,
)
from gateway.serving.supervision import Supervisor as Supervisor
