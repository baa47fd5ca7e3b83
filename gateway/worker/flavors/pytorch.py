"""Torch modules called directly, without a DataFrame and without gradients, on their device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gateway.worker.flavors import NotTakenError
from gateway.worker.rows.inputs import TENSOR, TENSOR_NAME, Inputs


def direct(model: Any, predict_fn: str) -> Callable[[Inputs], Any] | None:
    """Return a function that predicts with the bare module, or None if that may be wrong."""
    if predict_fn != "predict":
        return None
    import torch

    module = model.get_raw_model()
    if isinstance(module, torch.nn.Module) and not hasattr(module, "graph"):
        module.eval()
    device = _device(module)

    def call(inputs: Inputs) -> Any:
        if inputs.kind != TENSOR:
            raise NotTakenError("the input is not a single tensor")
        with torch.inference_mode():
            # On the CPU neither ``to`` nor ``cpu`` copies.
            return module(torch.from_numpy(inputs.arrays[TENSOR_NAME]).to(device)).cpu().numpy()

    return call


def gpu_bytes() -> int:
    """Return the GPU memory in bytes that torch has reserved in this process."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.memory_reserved(one) for one in range(torch.cuda.device_count()))


def _device(module: Any) -> str:
    """Return the device on which MLflow loaded the module: a GPU if one is visible."""
    for parts in (module.parameters, module.buffers):
        for tensor in parts():
            return str(tensor.device)
    return "cpu"
