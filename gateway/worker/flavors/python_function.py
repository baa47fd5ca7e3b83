"""Load any MLflow flavor as its python function."""

from __future__ import annotations

import os
import traceback
from functools import partial
from types import SimpleNamespace
from typing import Any

_TRACE_DESTINATIONS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_CONVERTS = "_convert_input"
"""The method with which MLflow's loaders convert an input to a model's own messages."""


def load(folder: str) -> Any:
    """Return the ``PyFuncModel`` of the artifact in ``folder``.

    MLflow's check of requirements is skipped: it takes ten times as long as the rest, and the
    control plane did it once; the description has its verdict.
    """
    import mlflow.pyfunc

    _parse_with_libyaml(mlflow.models.model)
    model = mlflow.pyfunc.load_model(folder, suppress_warnings=True)
    _trace_only_to_a_destination(mlflow)
    return model


def _parse_with_libyaml(reader: Any) -> None:
    """Give MLflow's ``reader`` of MLmodel files, and nothing else, the YAML parser written in C.

    MLflow parses the file three times per load: 5 ms of CPU with the parser written in Python, of
    about 95 for a small model. The control plane reads the file with the same C parser.
    """
    import yaml  # type: ignore[import-untyped,unused-ignore]  # no stubs

    if hasattr(yaml, "CSafeLoader"):
        quick = {"safe_load": partial(yaml.load, Loader=yaml.CSafeLoader)}
        reader.yaml = SimpleNamespace(**{**vars(yaml), **quick})


def _trace_only_to_a_destination(mlflow: Any) -> None:
    """Disable MLflow's traces, unless the environment or the model sets their destination.

    Otherwise MLflow writes them, callers' data included, to an ever growing database in the
    working folder.
    """
    if mlflow.is_tracking_uri_set() or any(map(os.environ.get, _TRACE_DESTINATIONS)):
        return
    disable = getattr(getattr(mlflow, "tracing", None), "disable", None)  # not in every MLflow
    if disable is not None:
        disable()


def from_type_hints(model: Any) -> bool:
    """Whether the signature comes from the model's type hints, so that it takes a list."""
    is_from_hint = getattr(model.metadata, "_is_signature_from_type_hint", None)  # in some MLflows
    return bool(is_from_hint is not None and is_from_hint())


def refused_the_input(error: BaseException) -> bool:
    """Whether MLflow refused the input, as opposed to a failure of the model.

    The signature of chat models and agents is vague; their loaders refuse an input by raising any
    error.
    """
    try:
        from mlflow.exceptions import MlflowException
    except ImportError:
        return False
    if isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
        return True
    return any(
        frame.f_code.co_name == _CONVERTS
        and str(frame.f_globals.get("__name__", "")).startswith("mlflow.pyfunc.loaders.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
