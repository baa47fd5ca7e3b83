"""The description of a model, read from its files, for gateway and worker.

The files are untrusted: nothing is imported, unpickled or run, sizes are bounded, and unreadable
optional parts are omitted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from registry_sync.artifacts import requirements_file, safe_yaml
from registry_sync.artifacts.manifest import FetchedArtifact
from registry_sync.errors import BrokenModelError, IncompleteArtifactError

DESCRIPTION_FORMAT_VERSION = 1

_MLMODEL = "MLmodel"
_MAX_MLMODEL_BYTES = 2 * 2**20
_MAX_TEXT_BYTES = 256 * 1024
_MAX_JSON_DEPTH = 100
_MAX_SERVING_EXAMPLE_BYTES = 64 * 1024

_SERVING_PATH = "serving_input_path"

_OWN_FLAVORS = {"mlflow.sklearn": "sklearn", "mlflow.pytorch": "pytorch"}
"""Flavors, by loader module, that the worker can load without MLflow's pyfunc."""

_PATH_KEYS = ("model_path", "data", "code", "python_model", "pickled_model", "model_data")
"""Keys of a flavor whose value is a path inside the artifact."""

_FRAMEWORKS = frozenset(
    {
        "catboost", "fastai", "h2o", "keras", "lightgbm", "mlflow", "mlflow-skinny", "numpy",
        "onnx", "onnxruntime", "pandas", "prophet", "pyarrow", "scikit-learn", "scipy",
        "sentence-transformers", "skops", "spacy", "statsmodels", "tensorflow", "torch",
        "torchvision", "transformers", "xgboost",
    }
)  # fmt: skip

_FRAMEWORK_OF_FLAVOR = {
    "sklearn": ("sklearn_version", "scikit-learn"),
    "pytorch": ("pytorch_version", "torch"),
}
"""The version key and the framework of each flavor."""


def describe(fetched: FetchedArtifact) -> dict[str, Any]:
    """Return the description of a fetched artifact.

    Raises:
        BrokenModelError: ``MLmodel`` cannot be read, or no flavor can serve the model.
        IncompleteArtifactError: ``MLmodel``, or a file that it names, is missing.
    """
    folder = fetched.folder
    mlmodel = check_complete(folder)
    pyfunc = mlmodel["flavors"].get("python_function")
    if not isinstance(pyfunc, dict) or not isinstance(pyfunc.get("loader_module"), str):
        raise BrokenModelError(
            "MLmodel has no python_function flavor with a loader_module, so it cannot be served"
        )
    found = requirements_file.read(folder)
    requirements = [] if found is None else found.to_compare()
    return {
        "format_version": DESCRIPTION_FORMAT_VERSION,
        "digest": fetched.manifest.digest,
        "size_bytes": fetched.size_bytes,
        "flavor": _flavor(mlmodel, pyfunc),
        "loader_module": pyfunc["loader_module"],
        "predict_fn": _text(pyfunc.get("predict_fn")) or "predict",
        "code": _text(pyfunc.get("code")),
        "env_python": _env_python(folder) or _text(pyfunc.get("python_version")),
        "signature": _signature(mlmodel.get("signature")),
        "frameworks": _frameworks(mlmodel, requirements),
        "requirements": requirements,
        "example": _example(folder, mlmodel.get("saved_input_example_info")),
    }


def check_complete(folder: Path) -> dict[str, Any]:
    """Return the content of ``MLmodel``, if all files that it names exist.

    Raises:
        BrokenModelError: ``MLmodel`` cannot be read, or names a path outside the folder.
        IncompleteArtifactError: A file is missing; the message names it.
    """
    mlmodel = _read_mlmodel(folder / _MLMODEL)
    for path in _named_paths(mlmodel):
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\x00" in path:
            raise BrokenModelError(
                f"MLmodel names {path!r}, which is outside of the model's folder"
            )
        if not _is_there(folder / pure):
            raise IncompleteArtifactError(f"MLmodel names {path!r}, which is not there (yet)")
    return mlmodel


def _is_there(path: Path) -> bool:
    """Return whether a path exists, with or without a suffix.

    Paddle's flavor names ``model`` for ``model.json`` and ``model.pdiparams``.
    """
    if path.exists():
        return True
    return path.parent.is_dir() and any(file.stem == path.name for file in path.parent.iterdir())


# --- MLmodel ------------------------------------------------------------------------------------


def _read_mlmodel(path: Path) -> dict[str, Any]:
    """Parse ``MLmodel``, within limits of bytes and values."""
    if not path.is_file():
        raise IncompleteArtifactError("the artifact has no MLmodel file (yet)")
    if path.stat().st_size > _MAX_MLMODEL_BYTES:
        raise BrokenModelError(f"MLmodel is larger than {_MAX_MLMODEL_BYTES} bytes")
    try:
        parsed = safe_yaml.load(path.read_bytes())
        if not isinstance(parsed.get("flavors"), dict):
            raise TypeError("no flavors")  # noqa: TRY301 - as a text without members raises
    except safe_yaml.UnreadableYamlError as error:
        raise BrokenModelError(f"MLmodel cannot be read as MLflow writes it ({error})") from error
    except (TypeError, AttributeError) as error:
        raise BrokenModelError(
            "MLmodel cannot be read as MLflow writes it (it names no flavors)"
        ) from error
    return dict(parsed)


def _flavor(mlmodel: Mapping[str, Any], pyfunc: Mapping[str, Any]) -> str:
    """Return the flavor with which the worker loads the model."""
    own = _OWN_FLAVORS.get(pyfunc["loader_module"])
    return own if own and own in mlmodel["flavors"] else "python_function"


def _named_paths(mlmodel: Mapping[str, Any]) -> Iterator[str]:
    """Yield every path inside the artifact that ``MLmodel`` names."""
    for flavor in mlmodel["flavors"].values():
        if isinstance(flavor, dict):
            yield from _flavor_paths(flavor)
    example = mlmodel.get("saved_input_example_info")
    if isinstance(example, dict):
        yield from filter(None, (_text(example.get(k)) for k in ("artifact_path", _SERVING_PATH)))


def _flavor_paths(flavor: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths that one flavor names."""
    yield from filter(None, (_text(flavor.get(key)) for key in _PATH_KEYS))
    env = flavor.get("env")
    yield from filter(None, map(_text, env.values() if isinstance(env, dict) else [env]))
    code_file = _text(flavor.get("model_code_path"))
    if code_file:
        # The publisher's path; the folder has the file under its name.
        yield PurePosixPath(code_file).name
    artifacts = flavor.get("artifacts")
    for artifact in artifacts.values() if isinstance(artifacts, dict) else ():
        if isinstance(artifact, dict) and isinstance(artifact.get("path"), str):
            yield artifact["path"]


def _signature(logged: Any) -> dict[str, Any] | None:
    """Return MLflow's signature with its JSON lists parsed, or None if it has no signature."""
    if logged is None:
        return None
    try:
        parts = {part: _json_list(logged.get(part)) for part in ("inputs", "outputs", "params")}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenModelError("the signature in MLmodel cannot be read") from error
    return parts if any(part is not None for part in parts.values()) else None


def _json_list(text: str | None) -> list[Any] | None:
    """Parse one part of a signature, a JSON list or None."""
    if text is None:
        return None
    parsed = _parse_json(text, allow_nan=False)
    if not isinstance(parsed, list):
        raise TypeError("not a list")
    return parsed


def _parse_json(text: str | bytes, *, allow_nan: bool) -> Any:
    """Parse JSON, with NaN if allowed: MLflow writes it in examples, where callers send null."""

    def constant(name: str) -> None:
        if name != "NaN" or not allow_nan:
            raise ValueError(f"{name} is not a JSON value")

    return _check_round_trip(json.loads(text, parse_constant=constant))


def _check_round_trip(parsed: Any) -> Any:
    """Return a value that can be written as JSON again.

    Raises:
        ValueError: The value has infinities, such as ``1e999``, lone surrogates, or is too deep.
    """
    waiting = [(parsed, 1)]
    while waiting:
        value, depth = waiting.pop()
        match value:
            case str():
                value.encode()
            case float() if not math.isfinite(value):
                raise ValueError("a number is too large")
            case dict() | list() if depth > _MAX_JSON_DEPTH:
                raise ValueError("nested too deeply")
            case dict():
                waiting += [(one, depth + 1) for pair in value.items() for one in pair]
            case list():
                waiting += [(one, depth + 1) for one in value]
    return parsed


def _text(value: Any) -> str | None:
    """Return ``value`` if it is a text that is not empty, or None."""
    return value if isinstance(value, str) and value else None


# --- files beside MLmodel -----------------------------------------------------------------------


def _example(folder: Path, info: Any) -> dict[str, Any]:
    """Return the path of the serving example, and the example if it is small and readable."""
    path = _text(info.get(_SERVING_PATH)) if isinstance(info, dict) else None
    if path is None:
        return {"path": None, "serving": None}
    file = folder / path
    serving = None
    if file.is_file() and file.stat().st_size <= _MAX_SERVING_EXAMPLE_BYTES:
        try:
            serving = _parse_json(file.read_bytes(), allow_nan=True)
        except (ValueError, RecursionError):
            serving = None
    return {"path": path, "serving": serving}


def _env_python(folder: Path) -> str | None:
    """Return the Python version in ``python_env.yaml``, or None."""
    text = _read_text(folder / "python_env.yaml")
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "python":
            return value.strip().strip("'\"") or None
    return None


def _read_text(file: Path) -> str:
    """Return the content of a small text file, or an empty text."""
    if not file.is_file() or file.stat().st_size > _MAX_TEXT_BYTES:
        return ""
    return file.read_text(encoding="utf-8", errors="replace")


def _frameworks(mlmodel: Mapping[str, Any], requirements: list[str]) -> dict[str, str]:
    """Return versions of well-known frameworks, from flavors and exact requirements."""
    frameworks: dict[str, str] = {}
    for flavor, (key, framework) in _FRAMEWORK_OF_FLAVOR.items():
        noted = mlmodel["flavors"].get(flavor)
        if isinstance(noted, dict) and (found := _text(noted.get(key))):
            frameworks[framework] = found
    for line in requirements:
        name, _, version = line.partition(";")[0].partition("==")
        name = name.partition("[")[0].strip().lower().replace("_", "-")
        if version and name in _FRAMEWORKS:
            frameworks[name] = version.strip()
    return frameworks
