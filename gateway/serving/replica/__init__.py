"""A replica: one worker process as its parent sees it, from its launch to its end."""

from gateway.serving.replica.launcher import ExecLauncher, ForkserverLauncher, Launchers
from gateway.serving.replica.leftovers import MARK, Life, end_leftovers
from gateway.serving.replica.replica import (
    Replica,
    ReplicaLimits,
    ReplicaState,
    WorkerReply,
    clock_deadline,
)
from gateway.serving.replica.service_rate import Pace

__all__ = [
    "MARK",
    "ExecLauncher",
    "ForkserverLauncher",
    "Launchers",
    "Life",
    "Pace",
    "Replica",
    "ReplicaLimits",
    "ReplicaState",
    "WorkerReply",
    "clock_deadline",
    "end_leftovers",
]
