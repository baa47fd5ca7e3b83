"""The gateway's settings, read once from the environment (prefix ``GATEWAY_``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.contract import Alias
from gateway.system import NO_LONGER_A_SETTING, available_bytes

MIB = 1024 * 1024

BODY_TIMEOUT_S = 30.0
"""Time in which a caller must send 64 KiB of a body, or the rest of it."""
WORKER_IN_FLIGHT_BYTES = 64 * MIB
"""Most bytes of bodies inside one worker."""
BATCH_BYTES = 16 * MIB
"""Most bytes of bodies in one batch; a larger body is predicted alone."""
STANDBY_TIMEOUT_S = 300.0
"""Life of a warmed standby that is not activated."""
STUCK_GRACE_S = 10.0
"""Time beyond the time-out after which a busy worker is ended."""
ROLLBACK_ERROR_MARGIN = 0.05
"""Roll back only if the failed share of requests exceeds the old version's by this much."""
ROLLBACK_LATENCY_RATIO = 3.0
"""Roll back only if the 95th percentile of latency exceeds the old version's by this factor."""
ROLLBACK_LATENCY_FLOOR_S = 0.05
"""Roll back only if the 95th percentile of latency exceeds the old version's by these seconds."""

FORMER_SETTINGS = {
    **dict.fromkeys(
        (
            "GATEWAY_BODY_TIMEOUT_S",
            "GATEWAY_HEAD_TIMEOUT_S",
            "GATEWAY_MAX_BATCH_BYTES",
            "GATEWAY_MAX_IN_FLIGHT_BYTES",
            "GATEWAY_READ_TIMEOUT_S",
            "GATEWAY_ROLLBACK_ERROR_MARGIN",
            "GATEWAY_ROLLBACK_LATENCY_FLOOR_S",
            "GATEWAY_ROLLBACK_LATENCY_RATIO",
            "GATEWAY_STANDBY_TIMEOUT_S",
            "GATEWAY_STUCK_GRACE_S",
        ),
        NO_LONGER_A_SETTING,
    ),
    "GATEWAY_ROLLBACK_WINDOW_S": "it is called GATEWAY_OBSERVATION_WINDOW_S now",
    "GATEWAY_TORCH_DEVICE": f"{NO_LONGER_A_SETTING}; with CUDA_VISIBLE_DEVICES set to nothing, "
    "torch models use no GPU",
}
"""Why a variable is ignored, by the former names of settings."""

_SMALLEST_BUDGET_BYTES = 64 * MIB
_BYTES_OF_A_SMALL_WORKER = 64 * MIB
FEWEST_WORKERS, _MOST_WORKERS = 8, 256
_SHARE_OF_LOAD_BUDGET = 0.1


def _half_of_memory() -> int:
    return max(_SMALLEST_BUDGET_BYTES, available_bytes() // 2)


def _workers_within(settings: dict[str, Any]) -> int:
    """Return the default number of workers for a memory budget, which bounds them anyway."""
    fitting = settings.get("max_resident_bytes", 0) // _BYTES_OF_A_SMALL_WORKER
    return int(min(max(fitting, FEWEST_WORKERS), _MOST_WORKERS))


class GatewaySettings(BaseSettings):
    """Limits carry their unit in the name: ``_s`` seconds, ``_bytes`` bytes."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True)

    host: str = Field("127.0.0.1", description="Address that the public listener binds.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the public listener; 0: any.")
    node_dir: Path = Field(
        Path(".registry-gateway"),
        description="Folder that gateway and control plane of a node share.",
    )
    runtime_dir: Path | None = Field(
        None,
        description="Folder of the control socket, such as /run/registry-gateway, the same as "
        "REGISTRY_SYNC_RUNTIME_DIR; empty: the node directory.",
    )
    default_alias: Alias = Field(
        "champion", description="Alias that is meant where a caller names no version."
    )
    max_resident_bytes: int = Field(
        default_factory=_half_of_memory,
        ge=_SMALLEST_BUDGET_BYTES,
        description="Most private memory of all workers and their forkserver. By default half of "
        "the memory of the machine or the container.",
    )
    max_resident: int = Field(
        default_factory=_workers_within,
        ge=1,
        description="Most workers at a time, whatever their state. By default one for each 64 MiB "
        "of GATEWAY_MAX_RESIDENT_BYTES, but 8 to 256.",
    )
    max_in_flight: int = Field(
        256,
        ge=1,
        description="Most requests inside one worker, and most that wait for a version's worker.",
    )
    max_total_in_flight: int = Field(
        2048, ge=1, description="Most requests in flight on this gateway, of all models together."
    )
    max_total_in_flight_bytes: int = Field(
        256 * MIB,
        ge=1,
        description="Most bytes of requests and answers; one alone is never too big.",
    )
    max_body_bytes: int = Field(16 * MIB, ge=1, description="Largest body of a request.")
    max_answer_bytes: int = Field(
        64 * MIB, ge=1024, le=1024 * MIB, description="Largest answer to one request."
    )
    not_finite: Literal["null", "refuse"] = Field(
        "null",
        description="What a number in an answer that is NaN or infinite becomes: 'null', or "
        "'refuse': its request is answered 422.",
    )
    request_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="From a body's last byte to the answer, loading excluded."
    )
    max_connections: int = Field(
        10000, ge=1, description="Most connections of callers; those beyond it are turned away."
    )
    idle_timeout_s: float = Field(
        75.0, gt=0, description="Longest time without a request on an open connection."
    )
    load_budget_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Longest wait of a request for a version that is not resident.",
    )
    load_timeout_s: float = Field(
        300.0, gt=0, le=3600, description="Longest start, check and load of a worker."
    )
    warm_up_timeout_s: float = Field(
        120.0, gt=0, le=3600, description="Longest warm-up of a worker, once it has loaded."
    )
    proof_budget_s: float | None = Field(
        None,
        ge=0,
        le=3600,
        description="Time for proving that a model's requests may be joined, and how it is called "
        "fastest, beyond which neither is done; empty: a tenth of GATEWAY_LOAD_BUDGET_S; 0: never.",
    )
    on_demand_idle_s: float = Field(
        300.0, gt=0, description="Idle time after which a worker of an on_demand version ends."
    )
    probe_interval_s: float = Field(30.0, gt=0, description="Time between two probes of a worker.")
    drain_timeout_s: float = Field(
        30.0, ge=0, description="At shutdown, longest wait for requests in flight."
    )
    worker_memory_bytes: int = Field(
        0,
        ge=0,
        description="Most memory that one worker may take, touched or not; 0: as "
        "GATEWAY_MAX_RESIDENT_BYTES.",
    )
    observation_window_s: float = Field(
        600.0,
        ge=0,
        description="Time after a promotion in which the gateway rolls it back if the new version "
        "does worse; 0: never.",
    )
    rollback_min_requests: int = Field(
        50, ge=1, description="Fewest requests with which a version is compared."
    )
    worker_threads: int = Field(
        0,
        ge=0,
        description="Threads of numerical libraries in one worker; 0: cores divided by "
        "GATEWAY_MAX_RESIDENT, or by 8 if that is less.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Least severe log line; single requests that succeed, or are refused with a "
        "status below 500, are 'debug'.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="'auto': console on a terminal, JSON elsewhere."
    )

    @property
    def proof_s(self) -> float:
        """Seconds for the proofs of a model that are missing."""
        if self.proof_budget_s is not None:
            return self.proof_budget_s
        return _SHARE_OF_LOAD_BUDGET * self.load_budget_s

    @property
    def control_socket(self) -> Path:
        """The path of the control socket."""
        return (self.runtime_dir or self.node_dir) / "gateway.sock"

    @property
    def artifacts_dir(self) -> Path:
        """The artifact store, written by the control plane alone."""
        return self.node_dir / "artifacts"
