"""Every kind of model answers what MLflow's own scoring server answers, or differs as listed."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.corpus import Corpus, ReferenceServers, publish, served_by_the_command
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.scale import SOAK, WITH_TORCH
from tests.models.corpus.cases import WITH_EXAMPLE, WITHOUT_EXAMPLE, Case
from tests.models.corpus.compare import Answer, faults
from tests.models.corpus.table import CASES
from tests.servers import MlflowServer

GATEWAY = {**WITH_TORCH, "GATEWAY_LOAD_BUDGET_S": "240"}  # Spark and H2O take their time
CONTROL = {"REGISTRY_SYNC_SETTLE_S": "1"}  # Spark's models come without a word of being complete
NODE = "module_node" if SOAK else "shared_node"
"""The long run's node has settings for Spark and H2O; no other run has their models."""
THROUGH_ALL = (
    *("sklearn-skops", "sklearn-regressor", "columns", "params", "tensor-images"),
    *("answers-forecast", "answers-raises", "hint-orders", "converses-responses"),
    "torch-exported",
)
"""What is asked of registry, gateway and worker in every run; in the long run all are. What the
set-up has the libraries for is asked of the worker's code in every run:
`tests/integration/test_models_beside_mlflow.py`."""
ASKED = [case for case in CASES.values() if SOAK or case.name in THROUGH_ALL]
LOADED_BEFORE = ("torch", "sklearn", "skops.io")


def _named(names: Iterable[str]) -> list[Case]:
    """Return those of the cases that are asked in this run."""
    return [CASES[name] for name in names if CASES[name] in ASKED]


@pytest.fixture(scope="module")
def corpus(
    request: pytest.FixtureRequest,
    mlflow_registry: MlflowServer,
    mlflow_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Corpus]:
    """All models on the registry, a node that serves them, and MLflow's servers beside it."""
    folder = tmp_path_factory.mktemp("corpus")
    reference = ReferenceServers(folder, LOADED_BEFORE)
    prefix = publish(ASKED, mlflow_registry.url, folder)
    registry = Registry(mlflow_registry.url)
    for case in ASKED:
        registry.adopt(prefix + case.name)
    node: Node = request.getfixturevalue(NODE)
    corpus = Corpus(node.start(), prefix, registry, mlflow_root, reference)
    yield corpus
    corpus.close()
    registry.forget()


@pytest.mark.parametrize("version", [WITH_EXAMPLE, WITHOUT_EXAMPLE], ids=["example", "no example"])
@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
def test_it_answers_what_mlflow_answers_or_differs_as_listed(
    corpus: Corpus, case: Case, version: int
) -> None:
    answers = corpus.ask(case, version)
    assert answers.keys() == case.bodies.keys()
    wrong = faults(case, version, answers)
    assert not wrong, "\n".join(wrong)


CLASSIFIERS = (
    *("sklearn-skops", "sklearn-names"),
    *("xgboost-classifier", "lightgbm-classifier", "catboost-classifier", "catboost-words"),
)
WITHOUT_PROBABILITIES = (
    *("sklearn-regressor", "columns"),
    *("xgboost-regressor", "xgboost-itself", "lightgbm-regressor", "lightgbm-itself"),
    "catboost-regressor",
)


@pytest.mark.parametrize("case", _named(CLASSIFIERS), ids=lambda case: case.name)
def test_a_classifier_gives_the_probabilities_that_its_predictions_follow(
    corpus: Corpus, case: Case
) -> None:
    answer = corpus.ask_for_probabilities(case, WITH_EXAMPLE)
    assert answer.status == 200, answer
    names, likely = answer.document["class_names"], answer.document["probabilities"]
    assert [sum(row) for row in likely] == pytest.approx([1.0] * len(likely))
    best = [names[row.index(max(row))] for row in likely]
    predicted = answer.document["predictions"]
    assert best == [one[0] if isinstance(one, list) else one for one in predicted]


@pytest.mark.parametrize("case", _named(WITHOUT_PROBABILITIES), ids=lambda case: case.name)
def test_a_model_without_probabilities_says_so(corpus: Corpus, case: Case) -> None:
    answer = corpus.ask_for_probabilities(case, WITH_EXAMPLE)
    assert (answer.status, answer.document["code"]) == (422, "invalid_input")
    assert answer.document["detail"].startswith("the model has no class probabilities: ")
    assert [one["field"] for one in answer.document["errors"]] == ["probabilities"]


if SOAK:  # it takes MLflow's command half a minute to begin

    def test_the_reference_answers_what_the_command_mlflow_models_serve_does(
        corpus: Corpus, tmp_path: Path
    ) -> None:
        for name in ("sklearn-names", "columns", "params"):
            case = CASES[name]
            answered = corpus.ask(case, WITHOUT_EXAMPLE)
            with served_by_the_command(corpus.folder(case, WITHOUT_EXAMPLE), tmp_path) as address:
                by_command = corpus.ask_reference(case, address)
            reference = {form: _comparable(theirs) for form, (_, theirs) in answered.items()}
            assert {form: _comparable(its) for form, its in by_command.items()} == reference

    def _comparable(answer: Answer) -> tuple[int, str | list[str]]:
        """Status and text; of a refusal its words in order: MLflow prints a set of names in it."""
        if answer.status == 200:
            return answer.status, answer.text
        return answer.status, sorted(re.findall(r"\w+", answer.text))


def test_every_listed_difference_is_about_a_body_that_is_sent() -> None:
    for case in CASES.values():
        assert case.differs.keys() <= case.bodies.keys(), case.name
        assert case.predicted.keys() <= case.differs.keys(), case.name


def test_every_listed_difference_that_is_answered_says_how() -> None:
    for case in CASES.values():
        for form in case.differs.keys() - case.predicted.keys():
            for version in (WITH_EXAMPLE, WITHOUT_EXAMPLE):
                listed = case.difference(form, version)
                if listed is not None and listed.ours == 200:
                    known = listed.like in case.bodies and listed.like != form
                    assert known is not listed.nulls, (case.name, form)
