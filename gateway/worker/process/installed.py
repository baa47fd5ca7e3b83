"""The versions of the libraries that are installed in this environment."""

from __future__ import annotations

from functools import cache
from importlib import metadata

PRELOADED = ("numpy", "pandas", "mlflow", "mlflow-skinny", "scikit-learn", "torch")
"""Libraries whose version nearly every load reads."""


@cache
def installed_version(name: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed.

    Reading a version takes a millisecond, and a load needs several. The forkserver reads those of
    `PRELOADED` once for all its workers.
    """
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None
