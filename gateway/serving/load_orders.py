"""The needs of a version's workers, and the LOAD message of each.

The answers come from the present route table and the artifact store.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.contract import ArtifactRef, Environment, digest_hex
from gateway.errors import GatewayError, LoadError
from gateway.routing import Node
from gateway.serving.kept_proofs import KeptProofs
from gateway.system.files import AlteredError, unseal
from gateway.worker.process import confinement
from gateway.worker.process.guarded_read import DamagedFileError, read_file
from gateway.worker.protocol import messages

_MIB = 1024 * 1024
_BASE_WORKER_BYTES = 32 * _MIB
"""Private pages of a forked worker without its model: the base of an estimate."""
_OWN_WORKER_BYTES = 192 * _MIB
"""The same for a worker under its own interpreter, which shares no library."""
_DESCRIPTION_FORMAT = 1
_MOST_RECORD_BYTES = 64 * _MIB
_CUDA_DRIVER = Path("/dev/nvidiactl")
_TORCH = "mlflow.pytorch"
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The resources of one worker; see `messages.Load`.

    Attributes:
        cuda_devices: The GPUs of torch models, or None.
        timeout_s: The time-out of models whose tags set none.
    """

    threads: int
    memory_bytes: int
    batch_bytes: int
    answer_bytes: int
    cuda_devices: str | None = None
    not_finite: str = "null"
    proof_budget_s: float = 3.0
    timeout_s: float = 30.0


class LoadOrders:
    """Answers about the versions of one node. Event loop only."""

    def __init__(
        self, node: Node, artifacts: Path, limits: WorkerLimits, proofs: KeptProofs | None = None
    ) -> None:
        self._node = node
        self._artifacts = artifacts
        self._limits = limits
        self._proofs = proofs

    def estimate_bytes(self, key: ArtifactRef) -> int:
        """Estimate the size of a version that was never loaded."""
        try:
            listed = self._node.table.version(key.model, key.version)
        except GatewayError:
            return _BASE_WORKER_BYTES  # served, but no longer listed
        own = self._node.table.environment_of(key).kind == "own" or self._uses_gpu(
            listed.description or {}
        )
        return (_OWN_WORKER_BYTES if own else _BASE_WORKER_BYTES) + 2 * (listed.size_bytes or 0)

    def replicas(self, key: ArtifactRef) -> int:
        """Return the number of replicas that a resident version should have."""
        table = self._node.table
        return (not table.is_out_of_reach(key) and table.policy_of(key).replicas) or 1

    def restarts(self, key: ArtifactRef) -> bool:
        """Whether a replica that died is replaced without a caller: for an alias, or by its tag."""
        return self._node.table.is_target(key) or self.keep_resident(key)

    def is_reachable(self, key: ArtifactRef) -> bool:
        """Whether a caller can mean the version."""
        return not self._node.table.is_out_of_reach(key)

    def keep_resident(self, key: ArtifactRef) -> bool:
        """Whether the version's replicas are evicted last, by its tag."""
        table = self._node.table
        return not table.is_out_of_reach(key) and bool(table.policy_of(key).keep_resident)

    def timeout_s(self, key: ArtifactRef) -> float | None:
        """Return the model's own time-out in seconds, or None if its tags set none."""
        return self._node.table.policy_of(key).timeout_s

    def ends_when_idle(self, key: ArtifactRef) -> bool:
        """Whether the version is loaded on demand only, or no caller can mean it."""
        table = self._node.table
        return table.is_out_of_reach(key) or table.policy_of(key).load == "on_demand"

    def preloaded(self) -> list[ArtifactRef]:
        """Return the active versions that are resident from the start, by their tags."""
        table = self._node.table
        return [ref for ref in sorted(table.targets) if table.policy_of(ref).load == "preload"]

    def servable(self, keys: Sequence[ArtifactRef]) -> list[ArtifactRef]:
        """Return the versions that this node may serve: active, or listed with these bytes."""
        table, servable = self._node.table, []
        for key in keys:
            with contextlib.suppress(GatewayError):  # it is no longer listed
                if table.is_target(key) or table.version(*key[:2]).digest == key.digest:
                    servable.append(key)
        return servable

    async def load_order(self, key: ArtifactRef) -> messages.Load:
        """Return the LOAD message of a version.

        Raises:
            LoadError: The artifact or its environment is not on this node, is damaged, or was
                written by a newer release.
        """
        rows = self._node.table.policy_of(key).max_batch_rows
        environment = self._environment(key)
        order = await asyncio.to_thread(self._read, key)
        order = replace(
            order,
            interpreter=environment.python,
            environment=environment.digest or environment.python or "",
            max_batch_rows=rows or _BATCH_ROWS,
            timeout_s=self.timeout_s(key) or order.timeout_s,
        )
        if self._uses_gpu(order.description):  # neither a fork nor a memory limit suits CUDA
            order = replace(
                order,
                interpreter=order.interpreter or sys.executable,
                cuda_devices=self._limits.cuda_devices,
                memory_bytes=None,
            )
        proof = await self._proofs.of(order) if self._proofs is not None else None
        return order if proof is None else replace(order, proof=proof.as_header())

    def _uses_gpu(self, description: Mapping[str, Any]) -> bool:
        is_torch = description.get("loader_module") == _TORCH
        return is_torch and self._limits.cuda_devices is not None

    def _environment(self, key: ArtifactRef) -> Environment:
        """Return the environment of a version.

        Raises:
            LoadError: Its own environment is not built. Under the shared one, answers might differ.
        """
        environment = self._node.table.environment_of(key)
        if environment.kind == "own" and environment.python is None:
            raise LoadError(
                "environment_missing", f"the own environment of {key} is not built (yet)"
            )
        return environment

    def _read(self, key: ArtifactRef) -> messages.Load:
        """Read the description of an artifact. Blocking."""
        name = digest_hex(key.digest)
        description = _description(self._artifacts / f"{name}.json", key)
        return messages.Load(
            model=key.model,
            version=key.version,
            digest=key.digest,
            artifact=str(self._artifacts / name),
            manifest=str(self._artifacts / f"{name}.manifest"),
            description=description,
            threads=self._limits.threads,
            memory_bytes=self._limits.memory_bytes,
            max_batch_bytes=self._limits.batch_bytes,
            max_answer_bytes=self._limits.answer_bytes,
            not_finite=self._limits.not_finite,
            proof_budget_s=self._limits.proof_budget_s,
            timeout_s=self._limits.timeout_s,
        )


def _description(record: Path, key: ArtifactRef) -> dict[str, Any]:
    """Return the description of an artifact. Blocking.

    Raises:
        LoadError: It cannot be read now (``unavailable``), is missing or damaged (``integrity``:
            the copy is fetched again), or newer than this gateway (``unsupported``).
    """
    try:
        description = unseal(read_file(record, _MOST_RECORD_BYTES))
    except FileNotFoundError as error:
        raise LoadError(
            "integrity", f"the bytes of {key} are not in this node's artifact store"
        ) from error
    except OSError as error:
        raise LoadError(
            "unavailable", f"the description of {key} cannot be read: {error.strerror}"
        ) from error
    except (DamagedFileError, AlteredError) as error:
        raise LoadError("integrity", f"the description of {key} is damaged: it {error}") from error
    version = description.get("format_version")
    if isinstance(version, int) and version > _DESCRIPTION_FORMAT:
        raise LoadError(
            "unsupported",
            "the artifact store was written by a newer version: upgrade the gateway",
        )
    if not isinstance(version, int) or description.get("digest", key.digest) != key.digest:
        raise LoadError(
            "integrity", f"the description of {key} is damaged: it describes another artifact"
        )
    return description


def cuda_devices(environ: Mapping[str, str], driver: Path = _CUDA_DRIVER) -> str | None:
    """Return the GPUs that workers may use, as in `messages.Load`, or None without any."""
    visible = environ.get("CUDA_VISIBLE_DEVICES", confinement.ALL_DEVICES)
    return visible if visible not in {"", "-1"} and driver.exists() else None
