"""All cases by name: those that every set-up can run, and those that need more libraries."""

from __future__ import annotations

from dataclasses import replace

from tests.models.corpus import (
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
from tests.models.corpus.listed import LISTED

_MODULES = (
    scikit_learn, python_models, hinted, torch_modules,
    boosting, forecasts, networks, texts, chains, java,
)  # fmt: skip

CASES: dict[str, Case] = {
    case.name: replace(case, differs=LISTED.get(case.name, {}))
    for module in _MODULES
    for case in module.CASES
}
