"""What ML engineers ask for by tags of a registered model, or of one version of it. Pure.

A version's tag goes before its model's, each tag on its own. One that cannot be read counts as if
it were not there, and is a problem to be told; so is one that nobody knows, since a typo must not
be silent. What a tag says is read without regard to case: MLflow makes ``True`` of a flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from math import isfinite
from typing import Any

from gateway.contract import InvalidReferenceError, Policy, parse_digest

PREFIX = "gateway."
DIGEST_TAG = "gateway.digest"
"""The tag of a model version by which its publisher says what its bytes must be."""
ENVIRONMENT_TAG = "gateway.environment"
"""The tag of a version, or else of its model, that says what its worker runs under."""
LOAD_TAG = "gateway.load"
SWAP_TAG = "gateway.swap"
SHARED, OWN = "shared", "own"

MAX_PROBLEMS = 20
"""The most problems that are told of one model; the last one says that there are more."""
_MAX_PROBLEM_CHARACTERS = 500
_MAX_TAG_CHARACTERS = 64
_MAX_TIMEOUT_S = 3600
_MAX_BATCH_ROWS = 1_000_000
_MAX_REPLICAS = 64
_MAX_CACHE_TTL_S = 86_400


class Swap(StrEnum):
    """How a version takes another one's place."""

    BLUE_GREEN = "blue_green"
    UNLOAD_FIRST = "unload_first"
    AUTO = "auto"


class Load(StrEnum):
    """When a version that an alias ought to mean is fetched, and whether its worker stays."""

    PRELOAD = "preload"
    LAZY = "lazy"
    ON_DEMAND = "on_demand"


_Reader = Callable[[str], object]
"""Reads a tag's text; raises a ``ValueError`` that says what the tag is not."""


def _word(*words: str) -> _Reader:
    def read(text: str) -> str:
        if (word := text.strip().casefold()) not in words:
            raise ValueError(f"it is none of {', '.join(words)}")
        return word

    return read


def _flag(text: str) -> bool:
    if (word := text.strip().casefold()) not in ("true", "false"):
        raise ValueError("it is neither true nor false")
    return word == "true"


def _whole(lowest: int, highest: int) -> _Reader:
    def read(text: str) -> int:
        value = _float(text)
        if not value.is_integer() or not lowest <= value <= highest:
            raise ValueError(f"it is not a whole number from {lowest} to {highest}")
        return int(value)

    return read


def _seconds(highest: int, *, may_be_0: bool = False) -> _Reader:
    def read(text: str) -> float:
        value = _float(text)
        if not 0 <= value <= highest or (value == 0 and not may_be_0):
            lowest = "from 0" if may_be_0 else "above 0, up"
            raise ValueError(f"it is not a number {lowest} to {highest}")
        return value

    return read


def _float(text: str) -> float:
    """Return a number; -1, which no tag takes, for what is none."""
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if isfinite(value) else -1.0


_READERS: Mapping[str, _Reader] = {
    SWAP_TAG: _word(*Swap),
    LOAD_TAG: _word(*Load),
    "gateway.replicas": _whole(1, _MAX_REPLICAS),
    "gateway.pin": _flag,
    "gateway.timeout_s": _seconds(_MAX_TIMEOUT_S),
    "gateway.max_batch_rows": _whole(1, _MAX_BATCH_ROWS),
    "gateway.cache_ttl_s": _seconds(_MAX_CACHE_TTL_S, may_be_0=True),
    ENVIRONMENT_TAG: _word(SHARED, OWN),
}
POLICY_TAGS = frozenset(_READERS)
"""Every tag by which a model or a version has a policy."""


def read_stamp(
    model: str, version: int | str, tags: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the digest that a version's tags stamp, and why a stamp that is there tells none.

    Both are None where there is no stamp. Where only a name in other letters than `DIGEST_TAG` is
    there, a stamp was meant, and nobody reads it.
    """
    others = [name for name in tags if _means_digest(name)]
    if not others:
        return None, None
    if DIGEST_TAG not in tags:
        why_not = f"its tag is written {_shown(min(others))}"
    else:
        try:
            return parse_digest(tags[DIGEST_TAG].strip()), None
        except InvalidReferenceError as error:
            why_not = str(error)
    return None, (
        f"the stamp of version {version} cannot be read, so its bytes cannot be checked, and it "
        f"does not serve: {why_not}; correct or remove its tag {DIGEST_TAG}, or, if its bytes are "
        f"known to be right, `registry-gateway stamp --force models:/{model}/{version}`"
    )


def _means_digest(name: str) -> bool:
    """Whether a tag's name is `DIGEST_TAG`, but for capital letters and spaces around it."""
    return name.strip().casefold() == DIGEST_TAG


def read_policy(tags: Mapping[str, str]) -> Policy | None:
    """Return what these tags ask for, as far as they can be read; None: nothing."""
    asked = {name.removeprefix(PREFIX): _read(name, tags) for name in POLICY_TAGS & tags.keys()}
    asked = {field: value for field, value in asked.items() if value is not None}
    return Policy.model_validate(asked) if asked else None


def asked_load(*tags: Mapping[str, str]) -> Load:
    """Return when to fetch and load, by the first of these tags that says so."""
    said = _first(LOAD_TAG, tags)
    return Load.LAZY if said is None else Load(said)


def asked_swap(*tags: Mapping[str, str]) -> Swap:
    """Return how to take another version's place, by the first of these tags that says so."""
    said = _first(SWAP_TAG, tags)
    return Swap.BLUE_GREEN if said is None else Swap(said)


def asks_own_environment(*tags: Mapping[str, str]) -> bool:
    """Whether to run in an environment of its own, by the first of these tags that says so."""
    return bool(_first(ENVIRONMENT_TAG, tags) == OWN)


def _first(name: str, tags: Iterable[Mapping[str, str]]) -> Any:
    return next((said for one in tags if (said := _read(name, one)) is not None), None)


def _read(name: str, tags: Mapping[str, str]) -> Any:
    """Return what a tag asks for; None: it is not there, or cannot be read."""
    text = tags.get(name)
    if text is None:
        return None
    try:
        return _READERS[name](text)
    except ValueError:
        return None


def problems_of(tags: Mapping[str, str], version: int | None = None) -> Iterator[str]:
    """Yield what is wrong with the tags of a version, or of a model: sentences for users."""
    whose = "" if version is None else f" of version {version}"
    for name in sorted(one for one in tags if one[: len(PREFIX)].casefold() == PREFIX):
        if name in _READERS:
            try:
                _READERS[name](tags[name])
            except ValueError as error:
                yield f"the tag {name}{whose} is ignored: {error}"
        elif name != DIGEST_TAG:
            if _means_digest(name) and version is not None and DIGEST_TAG not in tags:
                continue  # a stamp that cannot be read: see `read_stamp`
            near = _nearest(name[:_MAX_TAG_CHARACTERS])
            yield f"the tag {_shown(name)}{whose} is unknown, and ignored{near}"
        elif version is None:
            yield f"the tag {name} is ignored: it belongs on a version, not on its model"


def _shown(name: str) -> str:
    """Return a name that somebody made up as it can be put into a sentence."""
    fits = len(name) <= _MAX_TAG_CHARACTERS and name.isprintable()
    return name if fits else repr(name[:_MAX_TAG_CHARACTERS])


@lru_cache(maxsize=1024)
def _nearest(name: str) -> str:
    """Return the question whether another tag was meant; empty where none is near."""
    known = sorted(one.removeprefix(PREFIX) for one in (*POLICY_TAGS, DIGEST_TAG))
    said = name[len(PREFIX) :].casefold()
    near = get_close_matches(said, known, n=1, cutoff=0.4)
    return f": did you mean {PREFIX}{near[0]}?" if near else ""


def bounded_problems(problems: Iterable[str]) -> list[str]:
    """Return as many problems as are told of one model, each no longer than can be read.

    No more of them are looked for than are told.
    """
    told = [one[:_MAX_PROBLEM_CHARACTERS] for one in islice(problems, MAX_PROBLEMS + 1)]
    if len(told) > MAX_PROBLEMS:
        told[-2:] = [f"there are more problems than these {MAX_PROBLEMS - 1}"]
    return told
