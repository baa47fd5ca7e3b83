"""Whether a case was answered as MLflow answers it, or differs as listed."""

from __future__ import annotations

from collections.abc import Mapping

from tests.models.corpus.cases import Case
from tests.models.corpus.compare import Answer, difference


def faults(case: Case, version: int, answers: Mapping[str, tuple[Answer, Answer]]) -> list[str]:
    """Return what is neither equal nor as listed; ``answers`` are ours and MLflow's by form."""
    wrong = []
    for form, (ours, theirs) in answers.items():
        found = difference(case.bodies[form], ours, theirs, tolerance=case.tolerance)
        listed = case.difference(form, version)
        if listed is None and found is not None:
            wrong.append(f"{form}: not listed: {found}\n  ours: {ours}\n  MLflow: {theirs}")
        elif listed is not None and (found is None or not listed.fits(ours.status, theirs.status)):
            wrong.append(f"{form}: not as listed, {listed}\n  ours: {ours}\n  MLflow: {theirs}")
    return wrong
