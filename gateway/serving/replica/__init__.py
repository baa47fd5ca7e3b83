"""A replica: one worker process as its parent sees it, from its launch to its end."""

from gateway.serving.replica.launcher import (
    ExecLauncher as ExecLauncher,
    ForkserverLauncher as ForkserverLauncher,
    Launchers as Launchers,
)
from gateway.serving.replica.leftovers import (
    MARK as MARK,
    Life as Life,
    end_leftovers as end_leftovers,
)
from gateway.serving.replica.replica import (
    Replica as Replica,
    ReplicaLimits as ReplicaLimits,
    ReplicaState as ReplicaState,
)
from gateway.serving.replica.requests import WorkerReply as WorkerReply
from gateway.serving.replica.service_rate import ServiceRate as ServiceRate
