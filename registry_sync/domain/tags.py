"""Policy tags of registered models and their versions. Pure.

Each tag of a version overrides the same tag of its model. A tag that cannot be read is ignored and
reported as a problem; so is an unknown tag, since it may be a typo. Values are read without regard
to case, because MLflow writes a flag as ``True``.
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
"""Tag of a version: the digest that its publisher stamped."""
ENVIRONMENT_TAG = "gateway.environment"
"""Tag of a version or model: the environment of its worker."""
LOAD_TAG = "gateway.load"
SWAP_TAG = "gateway.swap"
SHARED, OWN = "shared", "own"

MAX_PROBLEMS = 20
"""Most problems reported per model; the last one says that there are more."""
_MAX_PROBLEM_CHARACTERS = 500
_MAX_TAG_CHARACTERS = 64
_MAX_TIMEOUT_S = 3600
_MAX_BATCH_ROWS = 1_000_000
_MAX_REPLICAS = 64
_MAX_CACHE_TTL_S = 86_400


class Swap(StrEnum):
    """The way in which a version replaces another."""

    BLUE_GREEN = "blue_green"
    UNLOAD_FIRST = "unload_first"
    AUTO = "auto"


class Load(StrEnum):
    """The time at which an alias's target is fetched and loaded, and whether its worker stays."""

    PRELOAD = "preload"
    LAZY = "lazy"
    ON_DEMAND = "on_demand"


_Reader = Callable[[str], object]
"""Parses a tag's text; raises a ``ValueError`` that names the constraint."""


def _word(*words: str) -> _Reader:
    def read(text: str) -> str:
        if (word := text.strip().casefold()) not in words:
            raise ValueError(f"it must be one of {', '.join(words)}")
        return word

    return read


def _flag(text: str) -> bool:
    if (word := text.strip().casefold()) not in ("true", "false"):
        raise ValueError("it must be true or false")
    return word == "true"


def _whole(lowest: int, highest: int) -> _Reader:
    def read(text: str) -> int:
        value = _float(text)
        if not value.is_integer() or not lowest <= value <= highest:
            raise ValueError(f"it must be a whole number from {lowest} to {highest}")
        return int(value)

    return read


def _seconds(highest: int, *, may_be_0: bool = False) -> _Reader:
    def read(text: str) -> float:
        value = _float(text)
        if not 0 <= value <= highest or (value == 0 and not may_be_0):
            lowest = "from 0" if may_be_0 else "above 0, up"
            raise ValueError(f"it must be a number {lowest} to {highest}")
        return value

    return read


def _float(text: str) -> float:
    """Return a number, or -1, which no tag accepts, if the text is not one."""
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if isfinite(value) else -1.0


_READERS: Mapping[str, _Reader] = {
    SWAP_TAG: _word(*Swap),
    LOAD_TAG: _word(*Load),
    "gateway.replicas": _whole(1, _MAX_REPLICAS),
    "gateway.keep_resident": _flag,
    "gateway.timeout_s": _seconds(_MAX_TIMEOUT_S),
    "gateway.max_batch_rows": _whole(1, _MAX_BATCH_ROWS),
    "gateway.cache_ttl_s": _seconds(_MAX_CACHE_TTL_S, may_be_0=True),
    ENVIRONMENT_TAG: _word(SHARED, OWN),
}
_FORMER = {"gateway.pin": "gateway.keep_resident"}
"""By the former names of tags, the present ones."""
POLICY_TAGS = frozenset(_READERS)
"""All policy tags."""


def read_stamp(
    model: str, version: int | str, tags: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the stamped digest, and why a stamp cannot be read; both None without a stamp.

    A tag that differs from `DIGEST_TAG` only in case or spaces is a stamp that cannot be read.
    """
    names = [name for name in tags if _means_digest(name)]
    if not names:
        return None, None
    if DIGEST_TAG not in tags:
        why_not = f"its tag is written {_shown(min(names))}"
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
    """Whether a tag's name is `DIGEST_TAG`, up to case and surrounding spaces."""
    return name.strip().casefold() == DIGEST_TAG


def read_policy(tags: Mapping[str, str]) -> Policy | None:
    """Return the policy of the readable tags, or None without any."""
    read = {name.removeprefix(PREFIX): _read(name, tags) for name in POLICY_TAGS & tags.keys()}
    policy = {field: value for field, value in read.items() if value is not None}
    return Policy.model_validate(policy) if policy else None


def load_mode(*tags: Mapping[str, str]) -> Load:
    """Return when to fetch and load; earlier tags override later ones."""
    return Load(_first(LOAD_TAG, tags) or Load.LAZY)


def swap_mode(*tags: Mapping[str, str]) -> Swap:
    """Return how to replace another version; earlier tags override later ones."""
    return Swap(_first(SWAP_TAG, tags) or Swap.BLUE_GREEN)


def needs_own_environment(*tags: Mapping[str, str]) -> bool:
    """Whether to run in an environment of its own; earlier tags override later ones."""
    return bool(_first(ENVIRONMENT_TAG, tags) == OWN)


def _first(name: str, tags: Iterable[Mapping[str, str]]) -> Any:
    return next((value for one in tags if (value := _read(name, one)) is not None), None)


def _read(name: str, tags: Mapping[str, str]) -> Any:
    """Return the value of a tag, or None if it is absent or cannot be read."""
    text = tags.get(name)
    if text is None:
        return None
    try:
        return _READERS[name](text)
    except ValueError:
        return None


def problems_of(tags: Mapping[str, str], version: int | None = None) -> Iterator[str]:
    """Yield the problems of a version's or a model's tags, as sentences for users."""
    whose = "" if version is None else f" of version {version}"
    for name in sorted(one for one in tags if one[: len(PREFIX)].casefold() == PREFIX):
        if name in _READERS:
            try:
                _READERS[name](tags[name])
            except ValueError as error:
                yield f"the tag {name}{whose} is ignored: {error}"
        elif name != DIGEST_TAG:
            if _means_digest(name) and version is not None and DIGEST_TAG not in tags:
                continue  # reported by `read_stamp`
            if name in _FORMER:
                yield f"the tag {name}{whose} is ignored: it is called {_FORMER[name]} now"
                continue
            near = _nearest(name[:_MAX_TAG_CHARACTERS])
            yield f"the tag {_shown(name)}{whose} is unknown, and ignored{near}"
        elif version is None:
            yield f"the tag {name} is ignored: it belongs on a version, not on its model"


def _shown(name: str) -> str:
    """Return a user's name in a form that fits a sentence."""
    fits = len(name) <= _MAX_TAG_CHARACTERS and name.isprintable()
    return name if fits else repr(name[:_MAX_TAG_CHARACTERS])


@lru_cache(maxsize=1024)
def _nearest(name: str) -> str:
    """Return a question that suggests the nearest known tag, or an empty text."""
    known = sorted(one.removeprefix(PREFIX) for one in (*POLICY_TAGS, DIGEST_TAG))
    near = get_close_matches(name[len(PREFIX) :].casefold(), known, n=1, cutoff=0.4)
    return f": did you mean {PREFIX}{near[0]}?" if near else ""


def bounded_problems(problems: Iterable[str]) -> list[str]:
    """Return the first problems of a model, each bounded in length."""
    shown = [one[:_MAX_PROBLEM_CHARACTERS] for one in islice(problems, MAX_PROBLEMS + 1)]
    if len(shown) > MAX_PROBLEMS:
        shown[-2:] = [f"there are more problems than these {MAX_PROBLEMS - 1}"]
    return shown
