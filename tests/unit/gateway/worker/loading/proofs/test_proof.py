"""A proof that came from elsewhere: as it was written, or none."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.worker.loading.proofs import proof as proofs
from gateway.worker.loading.proofs.proof import MAX_LOST, Proof, libraries, merged, parse

KNOWN = Proof(
    made_with="0" * 64,
    answers="per_row",
    batching="joined",
    batching_reason="because",
    joined_rows=96,
    stopped_at=192,
    call_path="fast",
    call_path_reason="because",
    probabilities_joined=True,
    probabilities_on_arrays=True,
    decided=True,
    budget_s=3.0,
    spent_s=0.5,
    lost=1,
)


@pytest.mark.parametrize("proof", [KNOWN, Proof()])
def test_it_is_read_as_it_was_written(proof: Proof) -> None:
    assert parse(json.loads(json.dumps(proof.as_header()))) == proof


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answers", "some"),
        ("answers", ["per_row"]),
        ("batching", None),
        ("batching", "alone"),
        ("batching_reason", 1),
        ("batching_reason", "x" * 301),
        ("batching_reason", "\ud800"),
        ("batching_reason", "a line\nand another"),
        ("joined_rows", "96"),
        ("joined_rows", 0),
        ("joined_rows", -1),
        ("joined_rows", 96.0),
        ("joined_rows", True),
        ("joined_rows", 10**10),
        ("stopped_at", -1),
        ("call_path", "faster"),
        ("call_path_reason", {}),
        ("probabilities_joined", None),
        ("probabilities_on_arrays", 1),
        ("decided", "true"),
        ("budget_s", "3"),
        ("budget_s", -1.0),
        ("budget_s", float("nan")),
        ("budget_s", True),
        ("spent_s", -0.1),
        ("spent_s", "1"),
        ("lost", 3),
        ("made_with", []),
        ("made_with", "x" * 301),
    ],
)
def test_what_is_not_of_its_type_or_beyond_its_bounds_is_none(name: str, value: Any) -> None:
    assert parse(KNOWN.as_header() | {name: value}) is None


@pytest.mark.parametrize("name", sorted(KNOWN.as_header()))
def test_what_lacks_a_field_or_has_another_one_is_none(name: str) -> None:
    header = KNOWN.as_header()
    assert parse(header | {"newer": 1}) is None
    del header[name]
    assert parse(header) is None


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN.as_header())), _anything) | _anything)
def test_nothing_raises(value: Any) -> None:
    header = KNOWN.as_header() | value if isinstance(value, dict) else value
    read = parse(header)
    assert read is None or read.as_header() == header


def test_the_largest_proof_is_no_larger_than_a_kept_one_may_be() -> None:
    from gateway.serving.kept_proofs import MAX_FILE_BYTES

    wide = "\U0001f600" * 300
    largest = Proof(made_with=wide, batching_reason=wide, call_path_reason=wide)
    assert parse(largest.as_header()) == largest
    assert len(json.dumps(largest.as_header(), ensure_ascii=False).encode()) < MAX_FILE_BYTES


def test_a_reason_is_always_one_that_is_read() -> None:
    """Foreign names are in it: of loaders, and of what a model raises."""
    odd = "my.loader\u00ad\n\ud800 raised " + "E" * 300
    proof = Proof(decided=True)
    for say in (proof.keep_alone, proof.answer_whole, proof.give_up):
        say(odd)
        assert parse(proof.as_header()) == proof
    proof.call("pyfunc", odd)
    proof.join(6, odd)
    assert parse(proof.as_header()) == proof
    assert proof.batching_reason == proof.call_path_reason == f"my.loader??? raised {'E' * 280}"
    proof.join(6, "")
    proof.pause_at(odd)
    proof.stop_widening(12, odd)
    assert parse(proof.as_header()) == proof


def test_why_no_more_rows_are_proved_is_said_once_and_taken_back() -> None:
    proof = Proof()
    proof.pause_at("slow")
    assert proof.batching_reason == "it is not proved", "nothing is joined"
    proof.join(6, "proved")
    for _ in range(2):
        proof.pause_at("slow")
        assert proof.batching_reason == "proved; no more rows are proved yet: slow"
    proof.pause_at(None)
    assert proof.batching_reason == "proved"
    proof.pause_at("slow")
    proof.stop_widening(12, "in 12 rows it raised")
    assert proof.batching_reason == "proved; in 12 rows it raised"


WIDE = Proof(answers="per_row", batching="joined", joined_rows=1024, decided=True)
WHOLE = Proof(answers="whole", batching_reason="an answer was not one per row", decided=True)
ALONE = Proof(answers="per_row", batching_reason="rows influence each other", decided=True)
NARROW = Proof(answers="per_row", batching="joined", joined_rows=12, stopped_at=24, decided=True)


@pytest.mark.parametrize(
    ("better", "other"),
    [
        (WHOLE, WIDE),
        (WHOLE, ALONE),
        (WHOLE, Proof()),
        (WIDE, Proof()),
        (ALONE, Proof()),
        (ALONE, WIDE),
        (NARROW, WIDE),
        (NARROW, replace(NARROW, joined_rows=24, stopped_at=48)),
        (WIDE, replace(WIDE, joined_rows=96)),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_of_two_proofs_that_holds_which_forbids_more_and_then_the_wider(
    better: Proof, other: Proof, first: bool
) -> None:
    assert merged(*((better, other) if first else (other, better))) == better


def test_of_two_proofs_the_later_words_hold_and_lost_tries_of_both() -> None:
    later = replace(WIDE, batching_reason="again")
    assert merged(WIDE, later) == later
    lost = replace(WIDE, joined_rows=96, lost=MAX_LOST, budget_s=3.0, spent_s=7.0)
    both = replace(WIDE, lost=MAX_LOST, budget_s=3.0, spent_s=7.0)
    assert merged(lost, WIDE) == merged(WIDE, lost) == both


def test_a_proof_of_other_libraries_is_not_merged() -> None:
    other = replace(WIDE, made_with="3")
    assert merged(WHOLE, other) == other


def test_the_libraries_are_those_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("numpy", "pandas", "mlflow", "scikit-learn", "orjson")
    installed = dict.fromkeys(names, "1")
    monkeypatch.setattr(proofs, "installed_version", installed.get)
    description = {
        "loader_module": "mlflow.sklearn",
        "requirements": ["orjson[x]>=3 ; python_version>'3'", "no-such-thing==1", "-r x", "#"],
    }
    found = libraries(description, "3.11.7")
    assert found != libraries(description, "3.12.0")
    for name in (*names, "no-such-thing"):
        with monkeypatch.context() as patch:
            patch.setitem(installed, name, "2")
            assert libraries(description, "3.11.7") != found
    described = {**description, "frameworks": {"scikit-learn": "0.1", "none": "1"}}
    many = {**description, "requirements": [*description["requirements"], *["numpy"] * 100_000]}
    assert found == libraries(described, "3.11.7") == libraries(many, "3.11.7")
