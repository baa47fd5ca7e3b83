"""What one model of the corpus is: how it is logged, what it is asked, in what it differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
"""A JSON object that is sent as a body."""

WITH_EXAMPLE, WITHOUT_EXAMPLE = 1, 2
"""Each model is registered twice; these are the versions' numbers."""


@dataclass(frozen=True)
class Logging:
    """What ``log_model`` of a flavor is given.

    Attributes:
        flavor: The module under ``mlflow``.
        arguments: All arguments but the input example.
        example: The input example of the first version.
        without: What the second version, which has no example, is given besides.
        function: The flavor's function that logs.
    """

    flavor: str
    arguments: Mapping[str, Any]
    example: Any
    without: Mapping[str, Any] = field(default_factory=dict)
    function: str = "log_model"


def inferred(example: Any, answers: Any = None, params: Mapping[str, Any] | None = None) -> Any:
    """Return the signature that MLflow infers."""
    from mlflow.models import infer_signature

    return infer_signature(example, answers, dict(params) if params else None)


def logged(flavor: str, key: str, model: Any, example: Any, **more: Any) -> Logging:
    """Return a model that is logged with the signature of its example; ``key`` names it."""
    return Logging(flavor, {key: model, "signature": inferred(example), **more}, example)


def signature_of(*specs: Mapping[str, Any]) -> Callable[[], Any]:
    """Return what makes a signature of columns or tensors, as MLflow's JSON has them."""

    def make() -> Any:
        from mlflow.models import ModelSignature
        from mlflow.types import Schema

        return ModelSignature(Schema.from_json(json.dumps(specs)))

    return make


@dataclass(frozen=True)
class Difference:
    """A deliberate difference from MLflow's server.

    Attributes:
        ours: The status that this project answers.
        theirs: The status that MLflow answers, or those that it answers to bodies of the kind.
        reason: Why it differs, in one sentence.
        versions: The versions for which it does.
        like: The body whose answer ours must equal, where the case says no predictions.
        nulls: Whether ours must be MLflow's, with null for each number that is not finite.
    """

    ours: int
    theirs: int | tuple[int, ...]
    reason: str
    versions: tuple[int, ...] = (WITH_EXAMPLE, WITHOUT_EXAMPLE)
    like: str | None = None
    nulls: bool = False

    def fits(self, ours: int, theirs: int) -> bool:
        """Tell whether two statuses are those of this difference."""
        answered = self.theirs if isinstance(self.theirs, tuple) else (self.theirs,)
        return ours == self.ours and theirs in answered


Differences = Mapping[str, Difference | tuple[Difference, ...]]
"""The deliberate differences of a case by the body's name; several where its versions differ."""


@dataclass(frozen=True)
class Case:
    """One model and what is asked of it.

    Attributes:
        name: Its name, which is also the registered model's.
        build: Makes the model, in a process that has the libraries.
        bodies: What it is asked, by a name that says the form.
        needs: Modules beside those that every set-up installs.
        tolerance: How far numbers may be apart, relatively; 0 where both run the same code.
        differs: The deliberate differences, which `listed` gives it.
        predicted: What ours predicts to a body that differs, and has to be like no other.
        answered: Whether a body at least is answered by both.
    """

    name: str
    build: Callable[[], Logging]
    bodies: Mapping[str, Document]
    needs: tuple[str, ...] = ()
    tolerance: float = 0.0
    differs: Differences = field(default_factory=dict)
    predicted: Mapping[str, Any] = field(default_factory=dict)
    answered: bool = True

    def difference(self, body: str, version: int) -> Difference | None:
        """Return the difference that is listed for a body and a version."""
        listed = self.differs.get(body, ())
        several = listed if isinstance(listed, tuple) else (listed,)
        return next((one for one in several if version in one.versions), None)
