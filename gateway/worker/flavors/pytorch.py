"""Torch modules called directly, without a DataFrame and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.worker.inputs import TENSOR, TENSOR_NAME, Inputs


def direct(model: Any, predict_fn: str) -> Callable[[Inputs], Any] | None:
    """Return a function that predicts with the bare module; None if that cannot be right."""
    if predict_fn != "predict":
        return None
    import torch

    module = model.get_raw_model()
    if isinstance(module, torch.nn.Module) and not hasattr(module, "graph"):
        module.eval()

    def call(inputs: Inputs) -> Any:
        if inputs.kind != TENSOR:
            raise ValueError("the input is no single tensor")
        with torch.inference_mode():
            return module(torch.from_numpy(inputs.arrays[TENSOR_NAME])).numpy()

    return call
