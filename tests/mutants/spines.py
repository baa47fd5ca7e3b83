"""Which packages are sabotaged, how often, and which tests watch them.

The unit tests that run the sabotaged function are found by running them. Of contract tests and
integration tests, which run long or in processes of their own, those named here run against each
sabotage of the package that the unit tests have not noticed.
"""

from __future__ import annotations

from dataclasses import dataclass

_RECONCILE = "tests/unit/registry_sync/reconcile"
_SERVING = "tests/unit/gateway/serving"
_WORKER = "tests/integration/test_worker.py"
_OF_PROCESSES = ("launcher", "exec_launcher", "sessions", "leftovers")


@dataclass(frozen=True)
class Spine:
    """A package without those of its packages that are spines themselves.

    Attributes:
        sample: How many of its sabotages are tried.
        beside: Folders and files of tests that watch it beside the package's own unit tests.
    """

    package: str
    sample: int
    beside: tuple[str, ...] = ()

    @property
    def watched_by(self) -> tuple[str, ...]:
        """Return the folders and files of the tests that ought to notice a sabotage."""
        return (f"tests/unit/{self.package.replace('.', '/')}", *self.beside)


SPINES = (
    Spine("gateway.http", 18),
    Spine("gateway.rollout", 24),
    Spine("gateway.routing", 36, ("tests/unit/gateway/rollout",)),
    Spine("gateway.serving", 30, ("tests/unit/gateway/http/predict",)),
    Spine(
        "gateway.serving.replica",
        36,
        (
            _SERVING,
            *(f"tests/integration/test_{name}.py" for name in _OF_PROCESSES),
            _WORKER,
        ),
    ),
    Spine(
        "gateway.serving.residency",
        40,
        (_SERVING, "tests/unit/gateway/rollout", "tests/contracts/test_data_plane_machine.py"),
    ),
    Spine("gateway.system.files", 14, ("tests/unit/gateway/routing",)),
    Spine("gateway.system.http1", 16, ("tests/integration/test_connections.py",)),
    Spine("gateway.worker", 16, (_WORKER,)),
    Spine("gateway.worker.loading", 24, ("tests/contracts/test_integrity_corpus.py", _WORKER)),
    Spine("gateway.worker.rows", 12, ("tests/unit/gateway/worker", _WORKER)),
    Spine("registry_sync.artifacts", 22, ("tests/contracts/test_integrity_corpus.py", _RECONCILE)),
    Spine(
        "registry_sync.domain", 20, ("tests/unit/registry_sync", "tests/contracts/test_ledger.py")
    ),
    Spine("registry_sync.ledger", 20, ("tests/contracts/test_ledger.py", _RECONCILE)),
    Spine("registry_sync.operations", 16),
    Spine("registry_sync.planning", 34, ("tests/contracts/test_registry_machine.py", _RECONCILE)),
    Spine("registry_sync.reconcile", 20, ("tests/unit/registry_sync/operations",)),
    Spine("registry_sync.reconcile.steps", 24, (_RECONCILE,)),
    Spine(
        "registry_sync.sources",
        24,
        ("tests/contracts/test_source.py", "tests/integration/test_fetch_s3.py"),
    ),
)


def spine_of(module: str) -> Spine | None:
    """Return the innermost spine that a module belongs to; None if it is in none."""
    around = [one for one in SPINES if f"{module}.".startswith(f"{one.package}.")]
    return max(around, key=lambda one: len(one.package), default=None)
