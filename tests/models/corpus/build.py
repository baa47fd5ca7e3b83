"""Log models of the corpus to a registry: ``python -m tests.models.corpus.build URL PREFIX CASE…``.

Writes one line of JSON for each: its name, and why it could not be logged where it could not.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
import warnings

import mlflow

from tests.models.corpus.cases import Case
from tests.models.corpus.table import CASES


def log(case: Case, registered_name: str) -> None:
    """Register a model twice: with its example, then without. It is loaded when it is asked."""
    logging = case.build()
    log_model = getattr(importlib.import_module(f"mlflow.{logging.flavor}"), logging.function)
    for more in ({"input_example": logging.example}, logging.without):
        common = {"artifact_path": "model", "pip_requirements": ["mlflow"]}
        log_model(registered_model_name=registered_name, **{**common, **logging.arguments, **more})
    mlflow.MlflowClient().set_registered_model_tag(registered_name, "gateway.load", "on_demand")


def main(url: str, prefix: str, *names: str) -> None:
    """Log the cases with these names, one after the other."""
    warnings.simplefilter("ignore")
    mlflow.set_tracking_uri(url)
    for name in names:
        failure = None
        try:
            log(CASES[name], prefix + name)
        except Exception:  # noqa: BLE001  # whatever a library raises is told
            failure = traceback.format_exc()
        sys.stdout.write(json.dumps({"name": name, "failure": failure}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
