"""Models that tests build, save or register with real MLflow, and whose exact answers they know.

Each model is a frozen dataclass with the four methods of `BuildableModel`. ``register`` needs a
running tracking server. Two models that compare equal answer equally; different parameters
(``seed``, ``slope``, ``scale`` …) give answers that can be told apart.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd

_CODE = Path(__file__).parent / "code_paths"
_MLFLOW_STATE = threading.RLock()
"""MLflow keeps its tracking URI, and models their modules, for the whole process."""

Payload = dict[str, Any]


class BuildableModel(Protocol):
    """What every model of the catalogue can do."""

    def save(self, folder: Path) -> Path:
        """Save the model as a folder, which must not exist yet; return it."""
        ...

    def register(self, name: str, tracking_uri: str, tags: Mapping[str, str] | None = None) -> int:
        """Log the model, register it as a new version of ``name``; return the version."""
        ...

    def payload(self, rows: int = 1) -> Payload:
        """Return a body for ``predict`` with ``rows`` rows, always the same for the same number."""
        ...

    def expected(self, payload: Payload) -> list[Any]:
        """Return exactly the ``predictions`` that the model answers to ``payload``."""
        ...


class Logged:
    """Saving and registering, the same for every flavor."""

    flavor: ClassVar[str]

    def _arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def save(self, folder: Path) -> Path:
        with _quiet_mlflow() as mlflow:
            getattr(mlflow, self.flavor).save_model(path=str(folder), **self._arguments())
        return folder

    def register(self, name: str, tracking_uri: str, tags: Mapping[str, str] | None = None) -> int:
        with _quiet_mlflow() as mlflow:
            before = mlflow.get_tracking_uri()
            mlflow.set_tracking_uri(tracking_uri)
            try:
                info = getattr(mlflow, self.flavor).log_model(
                    name="model", registered_model_name=name, **self._arguments()
                )
                version = int(info.registered_model_version)
                client = mlflow.MlflowClient(tracking_uri)
                for key, value in (tags or {}).items():
                    client.set_model_version_tag(name, str(version), key, value)
            finally:
                mlflow.set_tracking_uri(before)
        return version


@contextlib.contextmanager
def _quiet_mlflow() -> Iterator[Any]:
    """Give MLflow to one caller at a time; afterwards no module or path of a model remains."""
    with _MLFLOW_STATE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
        import mlflow.pyfunc
        import mlflow.pytorch
        import mlflow.sklearn

        path, modules = list(sys.path), set(sys.modules)
        try:
            yield mlflow
        finally:
            sys.path[:] = path
            for module in set(sys.modules) - modules:
                if module == "scoring_rules" or module.startswith("code_model_"):
                    del sys.modules[module]


def split(columns: Sequence[str], data: list[list[Any]]) -> Payload:
    """Return a body with a table."""
    return {"dataframe_split": {"columns": list(columns), "data": data}}


def frame_of(payload: Payload) -> pd.DataFrame:
    """Return the table of a body."""
    table = payload["dataframe_split"]
    return pd.DataFrame(table["data"], columns=table["columns"])


def inferred(example: Any, answers: Any) -> Any:
    """Return MLflow's signature of an example and the answers to it."""
    from mlflow.models import infer_signature

    return infer_signature(example, answers)


# --- scikit-learn -------------------------------------------------------------------------------


class Estimated(Logged):
    """An estimator on a table. Its input example has the first ``example_rows`` of the payloads."""

    flavor = "sklearn"
    example_rows = 3

    def payload(self, rows: int = 1) -> Payload:
        raise NotImplementedError

    def estimator(self) -> Any:
        """Return the fitted estimator."""
        raise NotImplementedError

    def expected(self, payload: Payload) -> list[Any]:
        return list(self.estimator().predict(frame_of(payload)).tolist())

    def _example(self) -> pd.DataFrame:
        return frame_of(self.payload(self.example_rows))

    def _arguments(self) -> dict[str, Any]:
        example, model = self._example(), self.estimator()
        return {
            "sk_model": model,
            "signature": inferred(example, model.predict(example)),
            "input_example": example,
            "pip_requirements": ["scikit-learn"],
        }


IRIS_COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


@dataclass(frozen=True)
class IrisPipeline(Estimated):
    """``StandardScaler`` and ``LogisticRegression`` on four columns; class names are strings.

    Different seeds learn different classes for the same flowers.
    """

    seed: int = 0
    example_rows: int = 2

    def payload(self, rows: int = 1) -> Payload:
        data = np.round(np.random.default_rng(1000 + rows).uniform(0, 8, (rows, 4)), 3)
        return split(IRIS_COLUMNS, data.tolist())

    def estimator(self) -> Any:
        return _iris(self.seed)

    def expected_probabilities(self, payload: Payload) -> list[list[float]]:
        """Return exactly the ``probabilities`` of the answer, columns ordered as class_names."""
        return list(_iris(self.seed).predict_proba(frame_of(payload)).tolist())

    @property
    def class_names(self) -> list[str]:
        return list(_iris(self.seed).classes_.tolist())


@lru_cache(maxsize=64)
def _iris(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(seed)
    centres = random.permutation([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]])
    data = np.concatenate([centre + random.normal(0, 0.4, (40, 4)) for centre in centres])
    names = np.repeat(np.array(["setosa", "versicolor", "virginica"]), 40)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(
        pd.DataFrame(data, columns=list(IRIS_COLUMNS)), names
    )


@dataclass(frozen=True)
class ImputingModel(Estimated):
    """Fills in what is missing of ``x2`` by its mean: the signature calls that column optional."""

    slope: float = 1.0

    def payload(self, rows: int = 1) -> Payload:
        """Every second row lacks ``x2``, the first too."""
        return split(("x1", "x2"), [[float(row), 0.5 if row % 2 else None] for row in range(rows)])

    def estimator(self) -> Any:
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LinearRegression
        from sklearn.pipeline import make_pipeline

        frame = pd.DataFrame({"x1": [0.0, 1.0, 2.0, 3.0], "x2": [1.0, None, 5.0, 2.0]})
        answers = [self.slope * number for number in (1.0, 4.0, 2.0, 8.0)]
        return make_pipeline(SimpleImputer(), LinearRegression()).fit(frame, answers)

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "skops_trusted_types": ["numpy.dtype"]}


@dataclass(frozen=True)
class LinearModel(Estimated):
    """``LinearRegression`` on ``x1`` and ``x2`` that predicts ``slope*(x1+x2) + 1000*slope``.

    One slope per version makes every answer tell which version gave it. With ``example`` False no
    input example is logged.
    """

    slope: float = 1.0
    example: bool = True

    def payload(self, rows: int = 1) -> Payload:
        return split(("x1", "x2"), [[float(row), 0.5] for row in range(rows)])

    def estimator(self) -> Any:
        from sklearn.linear_model import LinearRegression

        model = LinearRegression()
        model.coef_ = np.array([self.slope, self.slope])
        model.intercept_ = 1000.0 * self.slope
        model.n_features_in_ = 2
        model.feature_names_in_ = np.array(["x1", "x2"], dtype=object)
        return model

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | ({} if self.example else {"input_example": None})


# --- torch --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TorchModel(Logged):
    """A small torch module on a tensor ``[-1, 4]`` of float32; answers ``[-1, 3]``."""

    flavor = "pytorch"

    seed: int = 0
    serialization_format: str = "pt2"

    def payload(self, rows: int = 1) -> Payload:
        data = np.round(np.random.default_rng(2000 + rows).uniform(-1, 1, (rows, 4)), 3)
        return {"inputs": data.tolist()}

    def expected(self, payload: Payload) -> list[Any]:
        import torch

        with torch.inference_mode():
            data = torch.from_numpy(np.asarray(payload["inputs"], dtype=np.float32))
            return list(self._module()(data).numpy().tolist())

    def _arguments(self) -> dict[str, Any]:
        example = np.asarray(self.payload(4)["inputs"], dtype=np.float32)
        answer = np.asarray(self.expected(self.payload(4)), dtype=np.float32)
        return {
            "pytorch_model": self._module(),
            "signature": inferred(example, answer),
            "input_example": example,
            "serialization_format": self.serialization_format,
            "pip_requirements": ["torch"],
        }

    def _module(self) -> Any:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return torch.nn.Sequential(
                torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
            ).eval()


# --- python models ------------------------------------------------------------------------------


class Scripted(Logged):
    """A ``PythonModel`` from a script, on a table with one column, ``x``."""

    flavor = "pyfunc"
    script: ClassVar[str]

    def payload(self, rows: int = 1) -> Payload:
        return self.payload_of(*(row + 0.25 for row in range(rows)))

    def payload_of(self, *values: float) -> Payload:
        """Return a body with exactly these values of ``x``, one row each."""
        return split(("x",), [[value] for value in values])

    def logged(self, example: pd.DataFrame, **more: Any) -> dict[str, Any]:
        """Return the arguments for MLflow."""
        return {
            "python_model": str(_CODE / "scripts" / self.script),
            "signature": inferred(example, [1.0]),
            "input_example": example,
            "pip_requirements": ["mlflow"],
            **more,
        }


@dataclass(frozen=True)
class HelperModel(Scripted):
    """A ``PythonModel`` that brings a module ``scoring_rules`` in ``code_paths``.

    ``rule`` is ``doubling`` or ``tripling``: same module name, different behaviour.
    """

    script = "with_helper.py"
    rule: str = "doubling"

    def expected(self, payload: Payload) -> list[Any]:
        factor = {"doubling": 2.0, "tripling": 3.0}[self.rule]
        return [factor * value for value in frame_of(payload)["x"].tolist()]

    def _arguments(self) -> dict[str, Any]:
        paths = [str(_CODE / self.rule / "scoring_rules.py")]
        return self.logged(frame_of(self.payload(2)), code_paths=paths)


@dataclass(frozen=True)
class ScriptedModel(Scripted):
    """A ``PythonModel`` that predicts ``scale * x``, and does as it is told besides.

    Attributes:
        scale: What ``x`` is multiplied with.
        loads_file: Every load appends the process id as a line; see `loads`. Registering loads the
            model too, so `register` empties the file afterwards.
        load_gate: In a worker, a load waits until this file is there, and starts a thread and a
            child first.
        lock_file: In a worker, a load locks this file until the worker ends, and raises if another
            worker has it.
        load_sleep_s: How long a load takes at least, in seconds.
        needs_module: In a worker, a load imports this module.
        fail_load: Loading raises.
        connect_file: Holds a port of this machine, while it is there: what ``connects`` says (a
            ``load``, a ``predict``) connects to it, and raises if it cannot.
        memory_mb: Memory that the loaded model holds, in MiB.
        load_peak_mb: Memory that loading holds besides, for a moment, in MiB.
        child_pid_file: Loading starts a child process that sleeps; its id is written here.
        predict_sleep_s: How long each ``predict`` takes at least, in seconds.
        row_sleep_s: How much longer it takes with each row.
        raise_on: A value of ``x`` that makes ``predict`` raise an error holding the caller's data.
        hang_on: A value that makes it sleep for an hour.
        exit_on: A value that makes it end its process with status 7.
        child_on: A value that makes it start a child process that sleeps.
        nan_on: A value that makes it answer NaN.
        subtract_batch_mean: Rows influence each other: the mean of the batch is taken off.
        influence_from: They do so only in batches of so many rows or more.
        answers: ``rows``, one for each; or what it answers to all of them together: a ``forecast``
            of three numbers, the ``best`` two (or one), a ``scalar``.
        calls_file: Every ``predict`` in a worker appends the number of its rows as a line; see
            `calls`. Registering, which asks the model too, leaves it alone.
        exits_from: In a worker, a batch of so many rows or more ends its process with status 7.
        hangs_from: In a worker, such a batch is never answered.
        print_on_predict: It writes to standard output.
        example: The values of ``x`` in the logged input example; none if empty.
    """

    script = "scripted.py"
    scale: float = 1.0
    loads_file: str = ""
    load_gate: str = ""
    lock_file: str = ""
    load_sleep_s: float = 0.0
    needs_module: str = ""
    fail_load: bool = False
    connect_file: str = ""
    connects: str = "load"
    memory_mb: int = 0
    load_peak_mb: int = 0
    child_pid_file: str = ""
    predict_sleep_s: float = 0.0
    row_sleep_s: float = 0.0
    raise_on: float | None = None
    hang_on: float | None = None
    exit_on: float | None = None
    child_on: float | None = None
    nan_on: float | None = None
    subtract_batch_mean: bool = False
    influence_from: int = 0
    answers: str = "rows"
    calls_file: str = ""
    exits_from: int = 0
    hangs_from: int = 0
    print_on_predict: bool = False
    example: tuple[float, ...] = field(default=(1.0, 2.5))

    def expected(self, payload: Payload) -> list[Any]:
        values = frame_of(payload)["x"].tolist()
        centred = self.subtract_batch_mean and len(values) >= self.influence_from
        mean = sum(values) / len(values) if centred else 0.0
        rows = [self.scale * (value - mean) for value in values]
        if self.answers == "forecast":
            return [sum(rows) + step for step in range(3)]
        if self.answers == "best":
            return sorted(rows, reverse=True)[:2]
        total: Any = sum(rows)
        return total if self.answers == "scalar" else rows

    def calls(self) -> list[int]:
        """Return the rows of all predictions so far, in order."""
        return _numbers_in(self.calls_file)

    def loads(self) -> list[int]:
        """Return the process ids of all loads so far, in order."""
        return _numbers_in(self.loads_file)

    def register(self, name: str, tracking_uri: str, tags: Mapping[str, str] | None = None) -> int:
        if self.child_pid_file:
            raise ValueError("registering loads the model here, and its child would stay: save it")
        version = super().register(name, tracking_uri, tags)
        self._forget_loads()
        return version

    def save(self, folder: Path) -> Path:
        super().save(folder)
        self._forget_loads()
        return folder

    def _forget_loads(self) -> None:
        if self.loads_file:
            Path(self.loads_file).write_text("")

    def _arguments(self) -> dict[str, Any]:
        config = {key: value for key, value in asdict(self).items() if key != "example"}
        more = {} if self.example else {"input_example": None}
        return self.logged(pd.DataFrame({"x": self.example or (1.0,)}), model_config=config, **more)


def _numbers_in(file: str) -> list[int]:
    return [int(line) for line in Path(file).read_text().split()] if Path(file).exists() else []


ODD_WAYS = (
    *("hang", "spin", "hang_deaf", "leave", "leave_politely", "interrupt", "crash"),
    *("end_own_group", "eat", "eat_and_keep", "recurse", "too_many_rows", "no_rows", "not_json"),
    *(
        "not_finite",
        "answer_much",
        "print_much",
        "write_to_descriptors",
        "close_output",
        "change_folder",
    ),
    *("change_environment", "start_threads", "fork_and_return", "fork_and_stay", "start_child"),
    "start_child_in_own_group",
)
"""What an `OddModel` can do, in the order of the script's ``ODD``."""


@dataclass(frozen=True)
class OddModel(Scripted):
    """A ``PythonModel`` that answers ``x``, and does to its process what a request asks for.

    Attributes:
        begins_oddly: A file with what it does in a worker before it serves: ``load`` or
            ``warm_up``, and one of `ODD_WAYS`. Empty: nothing.
    """

    script = "odd.py"
    begins_oddly: str = ""

    def oddly(self, way: str) -> Payload:
        """Return a body that asks for one of `ODD_WAYS`."""
        return self.payload_of(1000.0 + ODD_WAYS.index(way))

    def expected(self, payload: Payload) -> list[Any]:
        values = list(frame_of(payload)["x"].tolist())
        if payload == self.oddly("no_rows"):
            return []
        return [*values, 0.0] if payload == self.oddly("too_many_rows") else values

    def _arguments(self) -> dict[str, Any]:
        return self.logged(pd.DataFrame({"x": [1.0, 2.5]}), model_config=asdict(self))
