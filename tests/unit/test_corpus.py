"""What the corpus of models finds wrong with an answer."""

import json
from typing import Any

import pytest

from tests.models.corpus.cases import WITH_EXAMPLE, WITHOUT_EXAMPLE
from tests.models.corpus.compare import Answer, fault
from tests.models.corpus.table import CASES

NAMES = CASES["sklearn-names"]
NAN = CASES["answers-nan-in-an-array"]


def answered(status: int, predictions: Any = None) -> Answer:
    return Answer(status, json.dumps({"predictions": predictions}))


RIGHT = answered(200, ["no", "yes"])
REFUSED = answered(400)


@pytest.mark.parametrize(
    ("form", "ours", "theirs", "wrong"),
    [
        ("dataframe_split", RIGHT, RIGHT, None),
        ("dataframe_split", answered(200, ["no", "no"]), RIGHT, "not listed: predictions[1]"),
        ("instances, rows", RIGHT, REFUSED, None),
        ("instances, rows", answered(200, ["WRONG", "WRONG"]), REFUSED, "as listed[0]: 'WRONG'"),
        ("instances, rows", RIGHT, RIGHT, "not as listed"),
        ("a string", answered(422), REFUSED, None),
        ("a string", answered(500), REFUSED, "not listed: status 500, MLflow 400"),
        ("dataframe_split", answered(500), REFUSED, "not listed: status 500, MLflow 400"),
    ],
)
def test_a_wrong_answer_and_a_wrong_status_are_found(form, ours, theirs, wrong):
    answers = {"dataframe_split": (RIGHT, RIGHT), form: (ours, theirs)}
    found = fault(NAMES, form, 1, answers)
    assert found is None if wrong is None else str(found).startswith(wrong)


@pytest.mark.parametrize(
    ("ours", "right"), [([[1.0, None]], True), ([[1.5, None]], False), ([[1.0, 0.0]], False)]
)
def test_null_stands_where_mlflow_has_no_finite_number_and_nowhere_else(ours, right):
    answers = {"one row": (answered(200, ours), answered(200, [[1.0, float("nan")]]))}
    assert (fault(NAN, "one row", 1, answers) is None) is right


def test_an_answer_that_is_like_no_other_has_to_be_the_one_that_is_written_down():
    case = CASES["hint-whole"]
    for predicted, right in ((3, True), (4, False)):
        answers = {"2.0": (answered(200, [predicted]), REFUSED)}
        assert (fault(case, "2.0", 1, answers) is None) is right


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
