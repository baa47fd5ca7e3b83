"""All cases by name: those that every set-up can run, and those that need more libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.models.corpus import (
    arrays,
    boosting,
    chains,
    forecasts,
    hinted,
    java,
    networks,
    python_models,
    scikit_learn,
    texts,
    torch_modules,
)
from tests.models.corpus.cases import Case
from tests.models.corpus.listed import LISTED, UNANSWERED

_MODULES = (
    scikit_learn, python_models, arrays, hinted, torch_modules,
    boosting, forecasts, networks, texts, chains, java,
)  # fmt: skip

_PREDICTED = json.loads(Path(__file__).with_name("predicted.json").read_text())
"""What ours predicts by case and body."""

CASES: dict[str, Case] = {
    case.name: replace(
        case,
        differs=LISTED.get(case.name, {}),
        predicted=_PREDICTED.get(case.name, {}),
        answered=case.name not in UNANSWERED,
    )
    for module in _MODULES
    for case in module.CASES
}
