"""Every kind of model answers what MLflow's own scoring server answers, or differs as listed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.corpus import Corpus, ReferenceServers, publish, served_by_the_command
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.scale import WITH_TORCH
from tests.models.corpus.cases import WITH_EXAMPLE, WITHOUT_EXAMPLE, Case
from tests.models.corpus.compare import Answer, faults
from tests.models.corpus.table import CASES
from tests.servers import MlflowServer

pytestmark = pytest.mark.soak(
    "integration/test_models_beside_mlflow.py",
    "acceptance/test_every_kind_of_model_is_served.py",
)
GATEWAY = {**WITH_TORCH, "GATEWAY_LOAD_BUDGET_S": "240"}  # Spark and H2O take their time
CONTROL = {
    "REGISTRY_SYNC_UPLOAD_STABLE_S": "1"
}  # Spark's models come without a word of being complete
LOADED_BEFORE = ("torch", "sklearn", "skops.io")


@pytest.fixture(scope="module")
def corpus(
    module_node: Node,
    mlflow_registry: MlflowServer,
    mlflow_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Corpus]:
    """All models on the registry, a node that serves them, and MLflow's servers beside it."""
    folder = tmp_path_factory.mktemp("corpus")
    reference = ReferenceServers(folder, LOADED_BEFORE)
    prefix = publish(CASES.values(), mlflow_registry.url, folder)
    registry = Registry(mlflow_registry.url)
    for case in CASES.values():
        registry.adopt(prefix + case.name)
    corpus = Corpus(module_node.start(), prefix, registry, mlflow_root, reference)
    yield corpus
    corpus.close()
    registry.forget()


@pytest.mark.parametrize("version", [WITH_EXAMPLE, WITHOUT_EXAMPLE], ids=["example", "no example"])
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
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


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_the_probabilities_that_its_predictions_follow(
    corpus: Corpus, name: str
) -> None:
    answer = corpus.ask_for_probabilities(CASES[name], WITH_EXAMPLE)
    assert answer.status == 200, answer
    names, likely = answer.document["class_names"], answer.document["probabilities"]
    assert [sum(row) for row in likely] == pytest.approx([1.0] * len(likely))
    best = [names[row.index(max(row))] for row in likely]
    predicted = answer.document["predictions"]
    assert best == [one[0] if isinstance(one, list) else one for one in predicted]


@pytest.mark.parametrize("name", WITHOUT_PROBABILITIES)
def test_a_model_without_probabilities_says_so(corpus: Corpus, name: str) -> None:
    answer = corpus.ask_for_probabilities(CASES[name], WITH_EXAMPLE)
    assert (answer.status, answer.document["code"]) == (422, "invalid_input")
    assert answer.document["detail"].startswith("the model has no class probabilities: ")
    assert [one["field"] for one in answer.document["errors"]] == ["probabilities"]


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
