"""Verify, load and warm the artifact of a LOAD message, or report why that failed."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.worker.codecs import strict_json
from gateway.worker.flavors import python_function, pytorch
from gateway.worker.loading import expected_answers, input_example, integrity
from gateway.worker.loading.proofs import warm_up
from gateway.worker.loading.proofs.background import Background
from gateway.worker.loading.proofs.proof import WHOLE, Proof
from gateway.worker.loading.transient_faults import name_of, passing_fault
from gateway.worker.process import confinement, memory
from gateway.worker.process.installed import installed_version
from gateway.worker.protocol.messages import Load, Loaded, LoadFailed, Message, Warming, bounded
from gateway.worker.rows import signature as rules
from gateway.worker.served_model import ServedModel, call_pyfunc, log_without_data

_MAX_EXAMPLE_BYTES = 16 * 1024 * 1024


class LoadFailedError(Exception):
    """The artifact cannot be served.

    Attributes:
        report: The message for the gateway.
    """

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.report = LoadFailed(failure, bounded(message))


def failed_unforeseen(error: BaseException) -> LoadFailed:
    """Return the report of an error that `load` does not expect."""
    return _failed("load_failed", _sentence("preparing", error), error).report


def _failed(failure: str, message: str, error: BaseException) -> LoadFailedError:
    """Return the failure, as ``unavailable`` if a transient fault caused it."""
    fault = passing_fault(error)
    if fault is None:
        return LoadFailedError(failure, message)
    return LoadFailedError("unavailable", f"{message}: {name_of(fault)}, which may pass")


@dataclass(frozen=True)
class LoadedModel:
    """A warmed model with its proof, and the remaining proof for the background, if any."""

    model: ServedModel
    report: Loaded
    example: bytes | None
    proof: Proof = field(default_factory=Proof)
    background: Background | None = None


def load(
    order: Load, tell: Callable[[Message], None], clock: Callable[[], float] = time.monotonic
) -> LoadedModel:
    """Verify, load and warm an artifact.

    Args:
        order: The load order.
        tell: Sends a message to the gateway when the warm-up begins, and when a proof begins: each
            has its own time limit.
        clock: Monotonic seconds.

    Raises:
        LoadFailedError: The bytes are wrong, the model cannot be loaded or fails its example, or
            a transient fault occurred.
    """
    started = clock()
    if order.memory_bytes is not None:
        memory.bound(order.memory_bytes)
    _verify(order)
    verified = clock()
    confinement.allow_threads(order.threads)
    confinement.allow_devices(order.cuda_devices)
    model, pyfunc = _load(order)
    confinement.use_threads(order.threads)
    loaded = clock()
    tell(Warming())
    example = _example(order)
    proof = warm_up.kept(order)
    try:
        prover = warm_up.warm(model, pyfunc, order, example, proof=proof, clock=clock)
        warm_up.run(prover, proof, order.proof_budget_s, tell)
        checked = expected_answers.check(model, Path(order.artifact))
    except input_example.WarmUpFailedError as error:
        raise _failed("warm_up_failed", str(error), error) from error
    if checked.whole:
        proof.answer_whole(f"the answers that {expected_answers.FILE} expects are not one per row")
    background = None
    if not prover.over and proof.answers != WHOLE:
        left = Background(prover, proof, order.proof_budget_s, tell, timeout_s=order.timeout_s)
        background = None if left.over else left
    gc.collect()
    gc.freeze()  # later collections skip the objects that the model keeps
    durations = {
        "verify": verified - started,
        "load": loaded - verified,
        "warm_up": clock() - loaded,
    }
    private = memory.private_bytes()
    report = Loaded(
        private_bytes=private,
        peak_bytes=memory.peak_bytes(private),
        gpu_bytes=pytorch.gpu_bytes(),
        durations_s={phase: round(seconds, 6) for phase, seconds in durations.items()},
        warm_up="passed" if checked.count or example is not None else "no_example",
        expected_answers=checked.count,
        batching=proof.batching,
        batching_reason=proof.batching_reason,
        call_path=proof.call_path,
        call_path_reason=proof.call_path_reason,
        python=platform.python_version(),
        frameworks=_frameworks(order),
        answers=proof.answers,
        joined_rows=proof.joined_rows,
        proof=proof.as_header(),
    )
    return LoadedModel(model, report, example, proof, background)


def _verify(order: Load) -> None:
    """Verify the bytes.

    A file that cannot be read is ``unavailable``: it is no reason to remove the copy or to reject
    the version, both of which would outlast the permission or the disk that is repaired.
    """
    try:
        integrity.verify(Path(order.artifact), Path(order.manifest), order.digest)
    except integrity.IntegrityError as error:
        raise LoadFailedError("integrity", str(error)) from error
    except integrity.UnreadableError as error:
        raise LoadFailedError("unavailable", str(error)) from error


def _load(order: Load) -> tuple[ServedModel, Any]:
    try:
        pyfunc = _pyfunc(order)
        hinted = python_function.from_type_hints(pyfunc)
    except MemoryError as error:
        raise LoadFailedError("no_room", _too_much(order)) from error
    except BaseException as error:  # foreign code runs here, and may raise anything
        log_without_data(error)
        raise _failed("load_failed", _sentence("loading", error), error) from error
    try:
        signature = rules.parse(order.description.get("signature"), from_type_hints=hinted)
    except ValueError as error:
        raise LoadFailedError("unsupported", str(error)) from error
    model = ServedModel(
        order.model,
        order.version,
        signature,
        call_pyfunc(pyfunc),
        nulls=order.not_finite == "null",
    )
    return model, pyfunc


def _pyfunc(order: Load) -> Any:
    """Load with MLflow, which uses a GPU if it sees one.

    An exported program runs only on the device for which it was exported, usually the CPU. MLflow
    refuses it on a GPU; the second attempt makes MLflow use the CPU.
    """
    try:
        return python_function.load(order.artifact)
    except Exception:
        if not order.cuda_devices:
            raise
        os.environ["MLFLOW_DEFAULT_PREDICTION_DEVICE"] = "cpu"
        return python_function.load(order.artifact)


def _frameworks(order: Load) -> dict[str, str]:
    """Return this environment's versions of the frameworks that the description names."""
    found = {name: installed_version(name) for name in order.description.get("frameworks") or {}}
    return {name: version for name, version in found.items() if version is not None}


def _example(order: Load) -> bytes | None:
    """Return the example as a body: from the description, or from its file in the artifact."""
    described = order.description.get("example") or {}
    if (serving := described.get("serving")) is not None:
        return strict_json.dumps(serving)
    if not (relative := described.get("path")):
        return None
    path = Path(order.artifact, relative)
    try:
        if path.stat().st_size > _MAX_EXAMPLE_BYTES:
            return None
        return strict_json.repair_example(path.read_bytes())
    except (OSError, strict_json.InvalidJsonError) as error:
        raise _failed("warm_up_failed", "the input example cannot be read", error) from error


def _too_much(order: Load) -> str:
    if order.memory_bytes is None:
        return "loading the model took more memory than the machine has"
    most = order.memory_bytes // (1024 * 1024)
    return f"loading the model took more memory than a worker may have, {most} MiB"


def _sentence(doing: str, error: BaseException) -> str:
    """Return the failure as a sentence. It names a missing library, so that it can be installed."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{doing} the model needs {error.name!r}, which is not installed"
    return f"{doing} the model raised {type(error).__name__}"
