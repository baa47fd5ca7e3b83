"""Every MLflow flavor, through its python function."""

from __future__ import annotations

from typing import Any


def load(folder: str) -> Any:
    """Return the ``PyFuncModel`` of the artifact in ``folder``.

    MLflow's comparison of requirements with what is installed is left out: it takes ten times as
    long as the rest, and the control plane made it once, as the description's verdict.
    """
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(folder, suppress_warnings=True)


def refused_the_input(error: BaseException) -> bool:
    """Whether MLflow refused the input by the model's signature, rather than the model failing."""
    try:
        from mlflow.exceptions import MlflowException
    except ImportError:
        return False
    return isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE"
