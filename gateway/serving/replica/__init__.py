"""A replica: one worker process as its parent sees it, from its launch to its end."""

from gateway.serving.replica.launcher import ExecLauncher, ForkserverLauncher, Launchers
from gateway.serving.replica.leftovers import MARK, Life, end_leftovers
from gateway.serving.replica.replica import (
    Replica,
    ReplicaLimits,
    ReplicaState,
    clock_deadline,
)
from gateway.serving.replica.requests import WorkerReply
from gateway.serving.replica.service_rate import ServiceRate

__all__ = [
    "MARK",
    "ExecLauncher",
    "ForkserverLauncher",
    "Launchers",
    "Life",
    "Replica",
    "ReplicaLimits",
    "ReplicaState",
    "ServiceRate",
    "WorkerReply",
    "clock_deadline",
    "end_leftovers",
]
