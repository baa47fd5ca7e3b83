"""How a model is loaded where there may be a GPU."""

import os

import pytest

from gateway.worker.flavors import python_function
from gateway.worker.loading import load as loading
from gateway.worker.protocol.messages import Load


@pytest.mark.parametrize(("devices", "asked"), [("all", 2), (None, 1)])
def test_what_cannot_go_to_the_gpu_stays_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, devices: str | None, asked: int
) -> None:
    """MLflow is asked for an exported program that was exported for the processor."""
    folders = []

    def load(folder: str) -> str:
        folders.append(folder)
        if os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") != "cpu":
            raise RuntimeError("it can't be loaded on 'cuda' device")
        return "loaded"

    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "")
    monkeypatch.setattr(python_function, "load", load)
    order = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {}, cuda_devices=devices)
    if devices is None:
        with pytest.raises(RuntimeError):
            loading._pyfunc(order)
    else:
        assert loading._pyfunc(order) == "loaded"
    assert len(folders) == asked


@pytest.mark.parametrize(
    ("error", "failure", "says"),
    [
        (ModuleNotFoundError("no", name="lightgbm"), "load_failed", "needs 'lightgbm'"),
        (ImportError("cannot import name 'x'", name="lib"), "load_failed", "raised ImportError"),
        (
            ImportError("a.so: failed to map segment from shared object", name="_ufuncs"),
            "unavailable",
            "raised ImportError: ImportError (no memory or descriptor to link a library)",
        ),
        (MemoryError(), "no_room", "took more memory than the machine has"),
    ],
)
def test_only_a_library_that_is_not_there_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, error: Exception, failure: str, says: str
) -> None:
    def load(_folder: str) -> None:
        raise error

    monkeypatch.setattr(python_function, "load", load)
    with pytest.raises(loading.LoadFailedError) as failed:
        loading._load(Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {}))
    assert failed.value.report.failure == failure
    assert says in failed.value.report.message
    missing = isinstance(error, ModuleNotFoundError)
    assert ("not installed" in failed.value.report.message) is missing
