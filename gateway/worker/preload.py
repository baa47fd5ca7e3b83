"""What the forkserver imports before its first fork, so that a cold load takes milliseconds.

Importing this module does it, so only the forkserver may. The environment is set before the first
import that reads it: a forkserver with BLAS threads could not be forked safely.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import warnings

from gateway.worker.confinement import ENVIRONMENT

MODULES = (
    "numpy",
    "pandas",
    "cloudpickle",
    "orjson",
    "mlflow.pyfunc",
    "mlflow.pyfunc.loaders.code_model",
    "mlflow.sklearn",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.compose",
    "skops.io",
    "mlflow.pytorch",
    "torch.export.pt2_archive._package",
    "torch.export._trace",
    "torch._export.serde.serialize",
    "torch._export.passes.collect_tracepoints_pass",
)
"""Where torch is installed, ``skops.io`` and ``mlflow.pytorch`` bring it. The last ones are what
reading a ``pt2`` archive imports: a second, in every worker that would do it itself."""


def set_environment() -> None:
    """Set what the libraries read when they are imported."""
    os.environ.update(ENVIRONMENT)


def import_libraries() -> None:
    """Import what models are loaded with; a library that is not installed is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a gateway that drains may load still
set_environment()
import_libraries()
gc.collect()
gc.freeze()
