"""Names, versions, aliases and digests: what is one and what is not."""

import pytest
from hypothesis import given, strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_alias_name

from gateway.contract.references import (
    InvalidReferenceError,
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
    assert parse_selector("0012") == 12
    with pytest.raises(InvalidReferenceError):
        parse_alias("12")


@pytest.mark.parametrize("text", ["champion", "@champion"])
def test_an_alias_may_carry_its_sign(text):
    assert parse_selector(text) == "champion"


@pytest.mark.parametrize("text", ["", "@", "a b", "a.b", "@@a", "a\n", "a\u200b", "\u0308", "🙂"])
def test_not_a_selector(text):
    with pytest.raises(InvalidReferenceError, match="letters, digits"):
        parse_selector(text)


@pytest.mark.parametrize("text", ["ünï", "生産", "прод", "_", "-", "v1", "a1", "x" * 255])
def test_letters_of_every_script_are_an_alias_as_for_mlflow(text):
    assert parse_selector(f"@{text}") == parse_selector(text)
    assert parse_alias(text) == text
    _validate_model_alias_name(text)


@pytest.mark.parametrize("text", ["", "a b", "a.b", "a/b", "@a", "é!", "u\u0308", "x" * 256, "🙂"])
def test_what_mlflow_refuses_is_no_alias(text):
    with pytest.raises(MlflowException):
        _validate_model_alias_name(text)
    with pytest.raises(InvalidReferenceError):
        parse_alias(text)


@pytest.mark.parametrize("text", ["12", "٣", "²"])
def test_digits_of_every_script_are_no_alias(text):
    with pytest.raises(InvalidReferenceError, match="with the digits 0 to 9"):
        parse_alias(text)


def test_an_accent_that_is_a_character_of_its_own_is_explained():
    with pytest.raises(InvalidReferenceError, match="NFC"):
        parse_selector("u\u0308n")


@given(st.integers(min_value=1, max_value=2**53))
def test_versions_survive_their_spelling(number):
    assert parse_selector(str(number)) == number


def test_a_digest_is_exact():
    good = "sha256:" + "a" * 64
    assert digest_hex(parse_digest(good)) == "a" * 64
    for bad in ("a" * 64, good.upper(), good[:-1], good + "a", "md5:" + "a" * 64):
        with pytest.raises(InvalidReferenceError):
            parse_digest(bad)
