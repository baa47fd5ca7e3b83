"""Networks beside torch's: ONNX, Keras, TensorFlow and Paddle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging, inferred, logged

_ROWS = np.array([[0.5, 1.0, -1.0, 2.0], [1.5, 0.0, 0.25, -2.0]], dtype="float32")
_NAMED = {"x": _ROWS.tolist(), "y": [[1.0], [2.0]]}


def _onnx_graph(inputs: dict[str, int], nodes: list[Any]) -> Any:
    from onnx import TensorProto, helper

    def value(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])

    graph = helper.make_graph(
        nodes, "g", [value(*one) for one in inputs.items()], [value("out", 4)]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _onnx() -> Logging:
    from onnx import helper

    model = _onnx_graph({"x": 4}, [helper.make_node("Relu", ["x"], ["out"])])
    return logged("onnx", "onnx_model", model, _ROWS)


def _onnx_with_two() -> Logging:
    from onnx import helper

    model = _onnx_graph({"x": 4, "y": 1}, [helper.make_node("Mul", ["x", "y"], ["out"])])
    example = {name: np.array(rows, dtype="float32") for name, rows in _NAMED.items()}
    return logged("onnx", "onnx_model", model, example)


def _keras() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])


def _keras_model() -> Logging:
    # MLflow itself cannot log an example with this flavor: it writes it before there is a folder.
    return Logging("keras", {"model": _keras(), "signature": inferred(_ROWS)}, None)


def _keras_by_tensorflow() -> Logging:
    return logged("tensorflow", "model", _keras(), _ROWS)


def _tensorflow() -> Logging:
    import tensorflow as tf

    class Halves(tf.Module):  # type: ignore[misc]  # not typed
        """Halves what it is given."""

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            """Return the half."""
            return x / 2

    return logged("tensorflow", "model", Halves(), _ROWS, saved_model_kwargs={})


def _paddle() -> Logging:
    import paddle

    paddle.seed(0)
    spec = [paddle.static.InputSpec([None, 4], "float32")]
    layer = paddle.jit.to_static(paddle.nn.Linear(4, 3), input_spec=spec)
    return logged("paddle", "pd_model", layer, _ROWS)


_FORMS = bodies.of_tensor(_ROWS.tolist())
_ONNX, _KERAS = ("onnx", "onnxruntime"), ("tensorflow", "keras")
CASES = (
    Case("onnx", _onnx, _FORMS, needs=_ONNX),
    Case("onnx-two-inputs", _onnx_with_two, bodies.of_tensors(_NAMED), needs=_ONNX),
    Case("keras", _keras_model, _FORMS, needs=_KERAS),
    Case("keras-by-tensorflow", _keras_by_tensorflow, _FORMS, needs=_KERAS),
    Case("tensorflow", _tensorflow, _FORMS, needs=("tensorflow",)),
    Case("paddle", _paddle, _FORMS, needs=("paddle",)),
)
