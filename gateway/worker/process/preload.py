"""Import libraries before the forkserver's first fork, so that cold loads take milliseconds.

Importing this module does it, so only the forkserver may. The environment is set before the first
import that reads it: a forkserver with BLAS threads could not be forked safely.

The forkserver imports the worker's own program too: every worker would otherwise compile and link
the same hundred modules again, half of the CPU time of loading a small model.

After a restart callers wait for the first fork. Modules that few models need are therefore imported
some seconds later, between two forks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import warnings
from collections.abc import Iterable, Iterator

from gateway.worker.process import priority
from gateway.worker.process.confinement import ENVIRONMENT
from gateway.worker.process.installed import PRELOADED, installed_version

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
    "gateway.worker.entry",
    "gateway.worker.serving_loop",
    "gateway.worker.loading",
    "gateway.worker.process.warning_filter",
    "gateway.worker.flavors.pytorch",
    "gateway.worker.flavors.scikit_learn",
)
"""Where torch is installed, ``skops.io`` and ``mlflow.pytorch`` bring it."""

LATER = (
    "torch.export.pt2_archive._package",
    "torch.export._trace",
    "torch._export.serde.serialize",
    "torch._export.passes.collect_tracepoints_pass",
    "mlflow.tracing.processor.base_mlflow",
    "mlflow.tracing.processor.otel",
    "pyarrow.pandas_compat",
)
"""Reading a ``pt2`` archive imports the first four: a second, in every worker that does it itself.
MLflow imports the others inside functions."""
LATER_S = 5.0


def import_libraries(modules: Iterable[str]) -> None:
    """Import libraries of models; a library that is not installed is skipped."""
    with _frozen():
        for module in modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


def predict_once() -> None:
    """Fit a model and predict, for the imports of scikit-learn's first prediction.

    If this fails, each worker makes these imports itself.
    """
    with _frozen(), contextlib.suppress(Exception):
        import pandas as pd
        from sklearn.linear_model import LinearRegression

        table = pd.DataFrame({"x": [0.0, 1.0]})
        LinearRegression().fit(table, [0.0, 1.0]).predict(table)


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Pause the garbage collector and silence warnings; freeze all new objects.

    Imported objects stay, so collections would find nothing and take a fifth of the time.
    """
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.freeze()
        gc.enable()


def import_later(seconds: float) -> None:
    """Import the rest once, when the forkserver does nothing else. Its main thread only."""

    def now(*_: object) -> None:
        import_libraries(LATER)
        predict_once()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    signal.signal(signal.SIGALRM, now)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # A fork inherits the signal's handler, but not the timer.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL))


signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a gateway that drains may load still
os.environ.update(ENVIRONMENT)
import_libraries(MODULES)
for library in PRELOADED:
    installed_version(library)
priority.may_return()
import_later(LATER_S)
