"""Two answers to one body, compared: MLflow's server and this project's gateway."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.models.corpus.cases import Case, Difference

_STATUSES = {200: 200, 400: 422, 500: 422, 503: 503}
"""MLflow's status to ours.

MLflow answers 400 both to a body that it refuses and to one on which the model raises; here the
first is 422 and the second 500, which is listed. What it did not foresee is its 500.
A model that it cannot load has no server: 503 stands for that."""
_UNWRAPPED = frozenset({"messages", "prompt", "input"})
"""A body with one of these is a chat client's: MLflow answers it without ``predictions``."""
_MOST_SHOWN = 300


Answers = Mapping[str, "tuple[Answer, Answer]"]
"""By the body's name: ours, then MLflow's."""


@dataclass(frozen=True)
class Answer:
    """What one server answered: a status, and a document where the body is JSON."""

    status: int
    text: str

    @property
    def document(self) -> Any:
        """The body as JSON, in which MLflow spells what is no number NaN."""
        return json.loads(self.text)

    def __str__(self) -> str:
        """Return what a failure shows."""
        return f"{self.status} {_cut(self.text)}"


def difference(
    body: dict[str, Any], ours: Answer, theirs: Answer, *, tolerance: float = 0.0
) -> str | None:
    """Return how two answers to a body differ; None if they do not."""
    if ours.status != _STATUSES.get(theirs.status, theirs.status):
        return f"status {ours.status}, MLflow {theirs.status}"
    if ours.status != 200:
        return None
    predictions = theirs.document
    if not _UNWRAPPED & body.keys():
        predictions = predictions["predictions"]
    return _difference(ours.document["predictions"], predictions, tolerance, "predictions")


def faults(case: Case, version: int, answers: Answers) -> list[str]:
    """Return what is neither equal nor as listed, each with both answers."""
    wrong = []
    for form, (ours, theirs) in answers.items():
        if (found := fault(case, form, version, answers)) is not None:
            wrong.append(f"{form}: {found}\n  ours: {ours}\n  MLflow: {theirs}")
    served = any(ours.status == theirs.status == 200 for ours, theirs in answers.values())
    if case.answered and not served:
        wrong.append("no body is answered by both")
    return wrong


def fault(case: Case, form: str, version: int, answers: Answers) -> str | None:
    """Return what is wrong with our answer to a body; None if it is MLflow's, or as listed."""
    ours, theirs = answers[form]
    found = difference(case.bodies[form], ours, theirs, tolerance=case.tolerance)
    listed = case.difference(form, version)
    if listed is None:
        return None if found is None else f"not listed: {found}"
    if found is None or not listed.fits(ours.status, theirs.status):
        return f"not as listed, {listed}"
    if ours.status != 200:
        return None
    predicted = ours.document["predictions"]
    return _difference(predicted, _listed(case, form, listed, answers), case.tolerance, "as listed")


def _listed(case: Case, form: str, listed: Difference, answers: Answers) -> Any:
    """Return what ours must predict to a body that differs."""
    if form in case.predicted:
        return case.predicted[form]
    if listed.nulls:
        return _with_nulls(answers[form][1].document["predictions"])
    assert listed.like is not None, f"{case.name}, {form}: nothing says what is predicted"
    return answers[listed.like][0].document.get("predictions")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nulls(one) for one in value]
    if isinstance(value, dict):
        return {name: _with_nulls(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _difference(ours: Any, theirs: Any, tolerance: float, place: str) -> str | None:
    """Return where two JSON values differ first."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(f"{place}.{key}", ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        rows = enumerate(zip(ours, theirs, strict=True))
        pairs = [(f"{place}[{row}]", one, other) for row, (one, other) in rows]
    elif type(ours) is type(theirs) and not isinstance(ours, (dict, list)):
        return None if _equal(ours, theirs, tolerance) else f"{place}: {ours!r}, MLflow {theirs!r}"
    else:
        return f"{place}: {_cut(json.dumps(ours))}, MLflow {_cut(json.dumps(theirs))}"
    found = (_difference(one, other, tolerance, where) for where, one, other in pairs)
    return next((one for one in found if one is not None), None)


def _equal(ours: Any, theirs: Any, tolerance: float) -> bool:
    if isinstance(ours, float):
        return math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance)
    return bool(ours == theirs)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
