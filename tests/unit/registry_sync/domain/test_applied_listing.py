"""Absent models and aliases are removed by a second listing; unreadable ones stay."""

import pytest

from registry_sync.domain.applied_listing import AppliedListing, apply_listing
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion

M = "m"


def after(*listings: Aspired) -> AppliedListing:
    applied = AppliedListing(Aspired({}, 0.0))
    for one in listings:
        applied = apply_listing(applied, one)
    return applied


def of_three(aliases: dict[str, int], model: str = M) -> Aspired:
    versions = {n: AspiredVersion(model, n, location="") for n in (1, 2, 3)}
    return Aspired({model: AspiredModel(model, versions, aliases)}, listed_at=1.0)


FULL = of_three({"champion": 1, "b": 2})
WITHOUT_B = of_three({"champion": 1})
EMPTY = Aspired({}, 2.0)
OTHERS = of_three({"x": 1}, model="other")
BESIDE = {"other": {"x": 1}}


def both(one: Aspired, other: Aspired) -> Aspired:
    return Aspired({**one.models, **other.models}, listed_at=3.0)


def without(*, known: bool = True, unfollowed: frozenset[str] = frozenset()) -> Aspired:
    model = AspiredModel(M, FULL.models[M].versions, {}, aliases_known=known, unfollowed=unfollowed)
    return Aspired({M: model}, 1.0)


UNKNOWN, UNREADY, NONE = without(known=False), without(unfollowed=frozenset({"b"})), without()


@pytest.mark.parametrize(
    ("listings", "kept"),
    [
        ((UNKNOWN, UNKNOWN, UNKNOWN), True),
        ((NONE,), True),
        ((NONE, NONE), False),
        ((UNKNOWN, NONE), True),
        ((UNKNOWN, NONE, NONE), False),
        ((UNREADY, UNREADY, UNREADY, NONE), True),
        ((UNREADY, NONE, NONE), False),
        ((UNKNOWN, NONE, UNKNOWN, NONE), True),
    ],
)
def test_two_listings_in_a_row_lack_an_alias_before_it_is_taken_away(
    listings: tuple[Aspired, ...], kept: bool
) -> None:
    model = after(FULL, *listings).aspired.models[M]
    assert ("b" in model.aliases or model.keeps_alias("b")) is kept


@pytest.mark.parametrize(
    ("listings", "aliases"),
    [
        # An alias goes when two listings agree, not before.
        ((FULL, WITHOUT_B), {M: {"champion": 1, "b": 2}}),
        ((FULL, WITHOUT_B, WITHOUT_B), {M: {"champion": 1}}),
        # An alias that comes back is counted anew.
        ((FULL, WITHOUT_B, FULL, WITHOUT_B), {M: {"champion": 1, "b": 2}}),
        # So does a model.
        ((both(FULL, OTHERS), OTHERS), {M: {"champion": 1, "b": 2}, "other": {"x": 1}}),
        ((both(FULL, OTHERS), OTHERS, OTHERS), {"other": {"x": 1}}),
        # An alias that the listing before lacked goes with its model, which has one more.
        ((both(FULL, OTHERS), both(WITHOUT_B, OTHERS), OTHERS), {M: {"champion": 1}, **BESIDE}),
        # So does one of a model that was missing and comes back without it.
        ((both(FULL, OTHERS), OTHERS, both(WITHOUT_B, OTHERS)), {M: {"champion": 1}, **BESIDE}),
        # An empty listing after one with models changes nothing.
        ((FULL, EMPTY, EMPTY, EMPTY), {M: {"champion": 1, "b": 2}}),
        # A moved alias counts at once.
        ((FULL, of_three({"champion": 2, "b": 2})), {M: {"champion": 2, "b": 2}}),
    ],
)
def test_aliases_after_listings(
    listings: tuple[Aspired, ...], aliases: dict[str, dict[str, int]]
) -> None:
    applied = after(*listings)
    found = {model.name: dict(model.aliases) for model in applied.aspired.models.values()}
    assert found == aliases


def test_empty_listing_is_ignored_with_a_reason() -> None:
    applied = after(FULL, EMPTY)
    assert applied.ignored is not None
    assert "the listing is ignored" in applied.ignored
    assert applied.aspired.listed_at == EMPTY.listed_at


def test_a_first_listing_may_be_empty() -> None:
    assert after(EMPTY).ignored is None


def test_an_alias_kept_for_one_listing_keeps_its_version() -> None:
    shorter = Aspired(
        {M: AspiredModel(M, {1: FULL.models[M].versions[1]}, {"champion": 1})}, listed_at=2.0
    )
    applied = after(FULL, shorter)
    assert set(applied.aspired.models[M].versions) == {1, 2}
