"""What tags ask for: tables of texts and what they are read as; any text is survived."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.contract.catalogue import Policy
from registry_sync.domain import LedgerView
from registry_sync.domain.aspired import AspiredModel, AspiredVersion
from registry_sync.domain.tags import (
    DIGEST_TAG,
    MAX_PROBLEMS,
    POLICY_TAGS,
    Load,
    bounded_problems,
    load_mode,
    needs_own_environment,
    problems_of,
    read_policy,
)
from registry_sync.planning.catalogue import KnownState, describe_model


def read(name: str, text: str) -> Any:
    """What one tag is read as; None: it cannot be read, and that is said."""
    tags = {f"gateway.{name}": text}
    policy = read_policy(tags)
    value = getattr(policy, name) if policy else None
    assert (value is None) == bool(list(problems_of(tags)))
    return value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("swap", "blue_green", "blue_green"),
        ("swap", "unload_first", "unload_first"),
        ("swap", " Auto ", "auto"),
        ("swap", "blue-green", None),
        ("load", "preload", "preload"),
        ("load", "lazy", "lazy"),
        ("load", "on_demand", "on_demand"),
        ("load", "eager", None),
        ("load", "", None),
        ("replicas", "1", 1),
        ("replicas", "64", 64),
        ("replicas", "65", None),
        ("replicas", "0", None),
        ("replicas", "2.5", None),
        ("replicas", "two", None),
        ("keep_resident", "true", True),
        ("keep_resident", "False", False),
        ("keep_resident", "1", None),
        ("timeout_s", "0.25", 0.25),
        ("timeout_s", "3600", 3600.0),
        ("timeout_s", "3600.1", None),
        ("timeout_s", "0", None),
        ("timeout_s", "-1", None),
        ("timeout_s", "nan", None),
        ("timeout_s", "inf", None),
        ("timeout_s", "30s", None),
        ("timeout_s", "9" * 5000, None),
        ("max_batch_rows", "1", 1),
        ("max_batch_rows", "128.0", 128),
        ("max_batch_rows", "1000001", None),
        ("max_batch_rows", "1.5", None),
        ("cache_ttl_s", "0", 0.0),
        ("cache_ttl_s", "86400", 86400.0),
        ("cache_ttl_s", "86401", None),
        ("environment", "own", "own"),
        ("environment", "Shared", "shared"),
        ("environment", "mine", None),
    ],
)
def test_a_tag_is_read_or_said_to_be_unreadable(name: str, text: str, value: object) -> None:
    found = read(name, text)
    assert (found, type(found)) == (value, type(value))


def test_every_field_of_the_policy_has_a_tag() -> None:
    fields = {f"gateway.{name}" for name in Policy.model_fields if name != "problems"}
    assert fields == POLICY_TAGS


@pytest.mark.parametrize(
    ("tags", "version", "says"),
    [
        ({"gateway.timeout_s": "x"}, None, ["the tag gateway.timeout_s is ignored: it must be a"]),
        ({"gateway.keep_resident": "x"}, 3, ["of version 3 is ignored: it must be true"]),
        ({"gateway.pin": "true"}, None, ["is ignored: it is called gateway.keep_resident now"]),
        ({"gateway.timeout": "3"}, None, ["unknown, and ignored: did you mean gateway.timeout_s?"]),
        ({"gateway.batch_rows": "3"}, 2, ["of version 2 is unknown", "gateway.max_batch_rows?"]),
        ({"Gateway.Load": "lazy"}, None, ["Gateway.Load is unknown", "did you mean gateway.load?"]),
        ({"gateway.digset": "x"}, 1, ["did you mean gateway.digest?"]),
        ({"gateway.": "x"}, None, ["the tag gateway. is unknown, and ignored"]),
        ({"gateway.a\nb": "x"}, None, [r"'gateway.a\nb'"]),
        ({DIGEST_TAG: "sha256:1"}, None, ["belongs on a version"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tags: dict[str, str], version: int | None, says: list[str]) -> None:
    (problem,) = problems_of(tags, version)
    for part in says:
        assert part in problem


@pytest.mark.parametrize(
    "tags",
    [{}, {"team": "a"}, {"mlflow.note": "x"}, {"gateway_timeout": "3"}, {"gateway.load": "lazy"}],
)
def test_nothing_is_said_of_the_tags_of_others_and_of_good_ones(tags: dict[str, str]) -> None:
    assert list(problems_of(tags)) == []


def test_a_stamp_is_read_elsewhere() -> None:
    assert list(problems_of({DIGEST_TAG: "not one"}, 1)) == []
    assert list(problems_of({"Gateway.Digest": "not one"}, 1)) == []
    (ignored,) = problems_of({DIGEST_TAG: "x", "Gateway.Digest": "x"}, 1)
    assert "unknown, and ignored" in ignored
    assert read_policy({DIGEST_TAG: "not one"}) is None


ON_DEMAND, PRELOAD, BAD = (
    {"gateway.load": "on_demand"},
    {"gateway.load": "preload"},
    {"gateway.load": "?"},
)


@pytest.mark.parametrize(
    ("version", "model", "load"),
    [
        ({}, {}, Load.LAZY),
        ({}, PRELOAD, Load.PRELOAD),
        (ON_DEMAND, PRELOAD, Load.ON_DEMAND),
        (BAD, PRELOAD, Load.PRELOAD),
        (BAD, BAD, Load.LAZY),
    ],
)
def test_a_versions_tag_goes_before_its_models(
    version: dict[str, str], model: dict[str, str], load: Load
) -> None:
    assert load_mode(version, model) is load


def test_each_tag_goes_its_own_way() -> None:
    model = Policy(timeout_s=2.0, load="preload", problems=["hm"])
    assert model.with_own(None) is model
    own = read_policy(
        {"gateway.timeout_s": "5", "gateway.keep_resident": "false", "gateway.load": "?"}
    )
    assert model.with_own(own) == Policy(
        timeout_s=5.0, load="preload", keep_resident=False, problems=["hm"]
    )


# --- the catalogue --------------------------------------------------------------------------------


def catalogued(
    tags: dict[str, str], versions: dict[int, dict[str, str]], problems: tuple[str, ...] = ()
) -> Any:
    listed = {n: AspiredVersion("m", n, location="", tags=one) for n, one in versions.items()}
    model = AspiredModel("m", listed, tags=tags, problems=problems)
    found = describe_model("m", model, LedgerView(), KnownState(descriptions={}))
    assert found
    return found


def test_a_version_carries_what_its_own_tags_say_and_nothing_of_its_models() -> None:
    found = catalogued({"gateway.timeout_s": "2"}, {1: {}, 2: {"gateway.timeout_s": "9"}})
    assert found.policy == Policy(timeout_s=2.0)
    assert [one.policy for one in found.versions] == [None, Policy(timeout_s=9.0)]


def test_problems_of_a_model_include_its_versions_newest_first() -> None:
    found = catalogued(
        {"gateway.accepted": "x"},
        {1: {"gateway.keep_resident": "?"}, 2: {"gateway.keep_resident": "?"}},
        ("an alias",),
    )
    assert [problem.split(" is ")[0] for problem in found.policy.problems] == [
        "an alias",
        "the tag gateway.accepted",
        "the tag gateway.keep_resident of version 2",
        "the tag gateway.keep_resident of version 1",
    ]


def test_the_problems_of_a_model_are_bounded() -> None:
    found = catalogued(
        {}, {n: {"gateway.keep_resident": "?"} for n in range(1, 1000)}, ("x" * 10_000,)
    )
    assert len(found.policy.problems) == MAX_PROBLEMS
    assert found.policy.problems[-1] == "there are more problems than these 19"
    assert max(map(len, found.policy.problems)) <= 500


def test_exactly_as_many_problems_as_are_told_are_told() -> None:
    assert bounded_problems(map(str, range(MAX_PROBLEMS))) == [str(n) for n in range(MAX_PROBLEMS)]
    assert bounded_problems([]) == []


KNOWN = st.sampled_from(sorted(POLICY_TAGS | {DIGEST_TAG}))
NAMES = st.one_of(KNOWN, st.text().map("gateway.".__add__), st.text())
TEXTS = st.one_of(st.text(), st.floats().map(str), st.integers().map(str))
TAGS = st.dictionaries(NAMES, TEXTS, max_size=40)


@given(TAGS, st.dictionaries(st.integers(1, 99), TAGS, max_size=3))
def test_any_tags_give_a_policy_and_bounded_problems(
    tags: dict[str, str], versions: dict[int, dict[str, str]]
) -> None:
    found = catalogued(tags, versions)
    assert len(found.policy.problems) <= MAX_PROBLEMS
    assert all(problem and len(problem) <= 500 for problem in found.policy.problems)
    load_mode(*versions.values(), tags)
    needs_own_environment(*versions.values(), tags)
    # What is said goes through the contract unchanged.
    assert type(found).model_validate_json(found.model_dump_json()) == found
    for name in POLICY_TAGS & tags.keys():
        read_here = getattr(found.policy, name.removeprefix("gateway.")) is not None
        complained = any(one.startswith("the tag " + name + " ") for one in problems_of(tags))
        assert read_here != complained
