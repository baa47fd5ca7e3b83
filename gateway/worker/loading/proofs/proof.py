"""What warm-up has found out about a model, so that it need not be found out again.

A proof belongs to an artifact and to the libraries that answer with it. The gateway keeps it and
hands it to the next worker of the same artifact; it says nothing of another one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from typing import Any, TypeGuard

from gateway.worker.process.installed import installed_version

FORMAT = 2
"""Raised when what is proved changes its meaning: proofs of other formats are not read."""
MAX_ROWS = 10**9
MAX_LOST = 2
"""Workers that may lose a proof, until it is not tried any more."""
LONGEST_CALL = 0.1
"""Of the budget, and of the model's time-out: how long one call may take in the background."""
PER_ROW, WHOLE, UNKNOWN = "per_row", "whole", "unknown"
JOINED, ALONE = "joined", "alone"
FAST, PYFUNC = "fast", "pyfunc"
UNPROVED = "it is not proved"
"""How every reason begins that is one of time, or of accidents."""
_NO_MORE_YET = "; no more rows are proved yet: "
_MAX_TEXT = 300
_MAX_NAME = 100
_MAX_LIBRARIES = 64
_MAX_LOOKED_UP = 1000
_ALL = "all"
"""Stands for the digest over all libraries, where they are more than have room."""
_WORDS = {
    "answers": {PER_ROW, WHOLE, UNKNOWN},
    "batching": {JOINED, ALONE},
    "call_path": {FAST, PYFUNC},
}
_NUMBERS = {"joined_rows": (1, MAX_ROWS), "stopped_at": (0, MAX_ROWS), "lost": (0, MAX_LOST)}
_FLAGS = ("probabilities_joined", "probabilities_on_arrays", "settled")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "pytorch": "torch"}


@dataclass
class Proof:
    """What holds for a model now. A proof under way changes it, one finding after the other.

    Attributes:
        made_with: Versions of Python and of the libraries that answered, by name.
        answers: ``per_row``: one answer for each row, as was shown; ``whole``: an answer belongs to
            all rows of its request; ``unknown``: neither was shown.
        batching: ``joined``: requests may be predicted by one call; ``alone``: because of
            ``batching_reason``.
        joined_rows: The most rows that were proved together, and so the most that are joined.
        stopped_at: The number of rows that was the first not to be proved; 0: there is none.
        call_path: ``fast`` or ``pyfunc``, because of ``call_path_reason``.
        probabilities_joined: Whether joining is proved of class probabilities too; requests for
            them go alone otherwise.
        probabilities_on_arrays: Whether class probabilities are asked for on arrays too.
        settled: Whether batching and call path are decided; False: there was no time for it.
        budget_s: Seconds that there were for it.
        spent_s: Seconds that it took in the background, of all workers.
        lost: How many workers ended inside a proof, took far longer for a call than they may, or
            met a fault that may pass; one that did not come back counts as `MAX_LOST`.
    """

    made_with: dict[str, str] = field(default_factory=dict)
    answers: str = UNKNOWN
    batching: str = ALONE
    batching_reason: str = UNPROVED
    joined_rows: int = 1
    stopped_at: int = 0
    call_path: str = PYFUNC
    call_path_reason: str = UNPROVED
    probabilities_joined: bool = False
    probabilities_on_arrays: bool = False
    settled: bool = False
    budget_s: float = 0.0
    spent_s: float = 0.0
    lost: int = 0

    def as_header(self) -> dict[str, Any]:
        """Return what `parse` reads."""
        return asdict(self)

    def join(self, rows: int, reason: str) -> None:
        """Join so many rows from now on."""
        self.batching, self.batching_reason, self.joined_rows = JOINED, _text(reason), rows

    def keep_alone(self, reason: str) -> None:
        """Join nothing from now on."""
        self.batching, self.batching_reason, self.joined_rows = ALONE, _text(reason), 1

    def call(self, path: str, reason: str) -> None:
        """Call the model in this way from now on."""
        self.call_path, self.call_path_reason = path, _text(reason)

    def answer_whole(self, reason: str) -> None:
        """Divide no answer from now on: one belongs to all rows of its request."""
        self.answers, self.settled = WHOLE, True
        self.keep_alone(reason)

    def give_up(self, reason: str) -> None:
        """Say why what is not settled is not proved; what is found stays."""
        told = f"{UNPROVED}: {reason}"
        if self.settled:
            return
        if self.batching_reason.startswith(UNPROVED):
            self.keep_alone(told)
        if self.call_path_reason.startswith(UNPROVED):
            self.call(PYFUNC, told)

    def stop_widening(self, rows: int, reason: str) -> None:
        """Join no more rows than were proved together so far."""
        self.leave_at(None)
        self.stopped_at = rows
        self.batching_reason = _text(f"{self.batching_reason}; {reason}")

    def lose(self, lost: int, reason: str) -> None:
        """Note that a worker has lost it, and why; what is found stays."""
        self.lost = lost
        self.give_up(reason)
        self.leave_at(reason)

    def leave_at(self, reason: str | None) -> None:
        """Say why no more rows are proved for the time being; None: more are."""
        said = self.batching_reason.partition(_NO_MORE_YET)[0]
        if self.batching == JOINED:
            self.batching_reason = _text(f"{said}{_NO_MORE_YET}{reason}") if reason else said


def _text(told: str) -> str:
    """Return a reason as `parse` takes it: foreign names are in it, of any length."""
    return "".join(char if char.isprintable() else "?" for char in told[:_MAX_TEXT])


def longest_call_s(budget_s: float, timeout_s: float) -> float:
    """Return how long one call of a model may take in the background. Seconds.

    Args:
        budget_s: For a proof, in the warm-up.
        timeout_s: That an answer of the model may take.
    """
    return LONGEST_CALL * min(budget_s, timeout_s)


def merged(known: Proof, told: Proof) -> Proof:
    """Return what holds after two workers of an artifact have proved it beside each other.

    What forbids more beats what allows more, and what is decided beats what is not. A proof that
    was made with other libraries says nothing of this one: the later one holds then.
    """
    if known.made_with != told.made_with:
        return told
    best = max(told, known, key=_weight)
    return replace(
        best,
        lost=max(known.lost, told.lost),
        budget_s=max(known.budget_s, told.budget_s),
        spent_s=max(known.spent_s, told.spent_s),
    )


def _weight(proof: Proof) -> tuple[bool, bool, bool, int, int]:
    return (
        proof.answers == WHOLE,
        proof.settled,
        proof.settled and proof.batching == ALONE,
        -proof.stopped_at if proof.stopped_at else -MAX_ROWS - 1,
        proof.joined_rows,
    )


def parse(value: Any) -> Proof | None:
    """Return a proof that came from elsewhere; None: it is none, or beyond a bound."""
    names = {one.name for one in fields(Proof)}
    if not isinstance(value, dict) or value.keys() != names or not _fits(value):
        return None
    return Proof(**value)


def _fits(value: Mapping[str, Any]) -> bool:
    texts = (value["batching_reason"], value["call_path_reason"])
    flags = (value[name] for name in _FLAGS)
    return (
        all(type(value[name]) is str and value[name] in words for name, words in _WORDS.items())
        and all(_is_within(value[name], *bounds) for name, bounds in _NUMBERS.items())
        and all(_is_text(text) for text in texts)
        and all(type(flag) is bool for flag in flags)
        and all(_is_seconds(value[name]) for name in ("budget_s", "spent_s"))
        and (value["batching"] == JOINED or value["joined_rows"] == 1)
        and _is_of_libraries(value["made_with"])
    )


def _is_within(number: Any, least: int, most: int) -> bool:
    return type(number) is int and least <= number <= most


def _is_seconds(number: Any) -> bool:
    return type(number) in {int, float} and 0 <= number <= MAX_ROWS


def _is_text(text: Any) -> TypeGuard[str]:
    return type(text) is str and len(text) <= _MAX_TEXT and text.isprintable()


def _is_name(text: Any) -> bool:
    return _is_text(text) and len(text) <= _MAX_NAME and text.isascii()


def _is_of_libraries(value: Any) -> bool:
    return (
        type(value) is dict
        and len(value) <= _MAX_LIBRARIES
        and all(_is_name(name) and _is_name(version) for name, version in value.items())
    )


def libraries(description: Mapping[str, Any], python: str) -> dict[str, str]:
    """Return the versions, in this environment, of Python and of what answers for the model.

    numpy, pandas, MLflow, the flavor's framework, and what the artifact requires: for a Python
    function of the publisher's own, that is what it answers with. Of more than a proof may name,
    the rest is in a digest over all.
    """
    flavor = str(description.get("loader_module") or "").rpartition(".")[2]
    required = [
        found[0]
        for line in description.get("requirements") or []
        if (found := _REQUIREMENT.match(str(line)))
    ]
    names = [
        *("numpy", "pandas", "mlflow", "mlflow-skinny"),
        *(description.get("frameworks") or {}),
        *([_DISTRIBUTIONS.get(flavor, flavor)] if flavor else []),
        *required,
    ]
    found_versions = {"python": python}
    for name in islice(dict.fromkeys(names), _MAX_LOOKED_UP):
        if version := installed_version(name):
            found_versions[name] = version[:_MAX_NAME]
    if len(found_versions) <= _MAX_LIBRARIES:
        return found_versions
    lines = sorted(f"{name}=={version}" for name, version in found_versions.items())
    named = dict(islice(found_versions.items(), _MAX_LIBRARIES - 1))
    return {**named, _ALL: hashlib.sha256("\n".join(lines).encode()).hexdigest()}
