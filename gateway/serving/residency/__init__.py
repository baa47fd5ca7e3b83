"""The resident set: the replicas of versions, their waiters, and eviction."""

from gateway.serving.residency.decision import (
    LEAST_LOADS_AT_ONCE as LEAST_LOADS_AT_ONCE,
    ResidentLimits as ResidentLimits,
)
from gateway.serving.residency.replica_pool import (
    Lease as Lease,
    Observer as Observer,
    ReplicaPool as ReplicaPool,
    Resident as Resident,
)
from gateway.serving.residency.resident_set import ResidentSet as ResidentSet
