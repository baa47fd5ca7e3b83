"""Torch modules, exported and pickled, on tensors of several shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging, inferred

_ROWS = np.array([[0.5, 1.0, -1.0, 2.0], [1.5, 0.0, 0.25, -2.0]], dtype="float32")
_IMAGES = np.linspace(0, 1, 2 * 8 * 8, dtype="float32").reshape(2, 1, 8, 8)
_TOKENS = np.array([[1, 2, 3], [4, 5, 6]])


def _dense(torch: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def _flat(torch: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))


def _convolution(torch: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2))


def _embedding(torch: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Flatten())


def _module(
    make: Callable[[Any], Any], example: Any, *, exported: bool = False
) -> Callable[[], Logging]:
    def build() -> Logging:
        import torch

        torch.manual_seed(0)
        module = make(torch).eval()
        with torch.inference_mode():
            answer = module(torch.from_numpy(example)).numpy()
        arguments = {
            "pytorch_model": module,
            "signature": inferred(example, answer),
            "serialization_format": "pt2" if exported else "pickle",
        }
        return Logging("pytorch", arguments, example, without={"serialization_format": "pickle"})

    return build


CASES = (
    Case(
        "torch-exported",
        _module(_dense, _ROWS, exported=True),
        bodies.of_tensor(_ROWS.tolist()) | bodies.faults_of_tensor(_ROWS.tolist()),
    ),
    Case("torch-pickled", _module(_dense, _ROWS), bodies.of_tensor(_ROWS.tolist())),
    Case("torch-one-number", _module(_flat, _ROWS), bodies.of_tensor(_ROWS.tolist())),
    Case("torch-images", _module(_convolution, _IMAGES), bodies.of_tensor(_IMAGES.tolist())),
    Case(
        "torch-tokens",
        _module(_embedding, _TOKENS),
        bodies.of_tensor(_TOKENS.tolist()),
    ),
)
