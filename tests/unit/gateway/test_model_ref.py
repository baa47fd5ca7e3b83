"""Names, versions, aliases and digests: what is one and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model_ref import (
    InvalidReferenceError,
    SelectorKind,
    digest_hex,
    parse_alias,
    parse_digest,
    parse_model_name,
    parse_selector,
    parse_version,
)


@pytest.mark.parametrize("name", ["churn", "with space", "ümläut", "a?b%2F", "@x", "a" * 512])
def test_names_that_mlflow_allows(name):
    assert parse_model_name(name) == name


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a\x00b", "a" * 513])
def test_names_that_cannot_be(name):
    with pytest.raises(InvalidReferenceError):
        parse_model_name(name)


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "", "x", "²", "9" * 17])
def test_not_a_version(text):
    with pytest.raises(InvalidReferenceError):
        parse_version(text)


def test_digits_always_mean_a_version():
    assert parse_selector("0012").version == 12
    with pytest.raises(InvalidReferenceError):
        parse_alias("12")


@pytest.mark.parametrize("text", ["champion", "@champion"])
def test_an_alias_may_carry_its_sign(text):
    selector = parse_selector(text)
    assert (selector.kind, selector.text, str(selector)) == (
        SelectorKind.ALIAS,
        "champion",
        "@champion",
    )


@pytest.mark.parametrize("text", ["", "@", "a b", "a.b", "@@a", "é"])
def test_not_a_selector(text):
    with pytest.raises(InvalidReferenceError):
        parse_selector(text)


@given(st.integers(min_value=1, max_value=2**53))
def test_versions_survive_their_spelling(number):
    assert parse_selector(str(number)).version == number


def test_a_digest_is_exact():
    good = "sha256:" + "a" * 64
    assert digest_hex(parse_digest(good)) == "a" * 64
    for bad in ("a" * 64, good.upper(), good[:-1], good + "a", "md5:" + "a" * 64):
        with pytest.raises(InvalidReferenceError):
            parse_digest(bad)
