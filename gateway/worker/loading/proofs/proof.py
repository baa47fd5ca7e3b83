"""Proofs of how a model may be called, for reuse by later workers of the same artifact.

A proof holds for one artifact and the libraries that were loaded with it. The gateway keeps it and
passes it to the artifact's next worker.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

from gateway.worker.process.installed import installed_version

FORMAT = 3
"""Proofs of other formats are ignored; increase it when their meaning changes."""
MAX_ROWS = 10**9
MAX_LOST = 2
"""The most workers that may be lost in a proof before it is abandoned."""
LONGEST_CALL = 0.1
"""The longest background call, as a part of the budget and of the model's timeout."""
PER_ROW, WHOLE, UNKNOWN = "per_row", "whole", "unknown"
JOINED, ALONE = "joined", "alone"
FAST, PYFUNC = "fast", "pyfunc"
UNPROVED = "it is not proved"
"""Prefix of reasons that are a matter of time or of accidents."""
_NO_MORE_YET = "; no more rows are proved yet: "
_MAX_TEXT = 300
_MAX_LOOKED_UP = 1000
_WORDS = {
    "answers": {PER_ROW, WHOLE, UNKNOWN},
    "batching": {JOINED, ALONE},
    "call_path": {FAST, PYFUNC},
}
_NUMBERS = {"joined_rows": (1, MAX_ROWS), "stopped_at": (0, MAX_ROWS), "lost": (0, MAX_LOST)}
_FLAGS = ("probabilities_joined", "probabilities_on_arrays", "decided")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "pytorch": "torch"}


@dataclass
class Proof:
    """The present findings about a model; a running proof updates them.

    Attributes:
        made_with: A digest over the versions of Python and of the loaded libraries.
        answers: ``per_row``: an answer has one item per row; ``whole``: an answer belongs to all
            rows of its request; ``unknown``: neither was shown.
        batching: ``joined``: one call may predict several requests; ``alone``: it may not, because
            of ``batching_reason``.
        joined_rows: The most rows proved together, and so the most that are joined.
        stopped_at: The first number of rows that could not be proved, or 0.
        call_path: ``fast`` or ``pyfunc``, because of ``call_path_reason``.
        probabilities_joined: Whether joining is proved for class probabilities too.
        probabilities_on_arrays: Whether class probabilities may be computed from arrays too.
        decided: Whether batching and call path are decided.
        budget_s: The proof's time budget.
        spent_s: Seconds spent in the background, by all workers.
        lost: Workers that ended inside a proof, exceeded the time of a call by far, or met a
            transient fault; one that never returned counts as `MAX_LOST`.
    """

    made_with: str = ""
    answers: str = UNKNOWN
    batching: str = ALONE
    batching_reason: str = UNPROVED
    joined_rows: int = 1
    stopped_at: int = 0
    call_path: str = PYFUNC
    call_path_reason: str = UNPROVED
    probabilities_joined: bool = False
    probabilities_on_arrays: bool = False
    decided: bool = False
    budget_s: float = 0.0
    spent_s: float = 0.0
    lost: int = 0

    def as_header(self) -> dict[str, Any]:
        """Return the proof as a member of a header, for `parse`."""
        return asdict(self)

    def join(self, rows: int, reason: str) -> None:
        """Allow batches of ``rows`` rows."""
        self.batching, self.batching_reason, self.joined_rows = JOINED, _text(reason), rows

    def keep_alone(self, reason: str) -> None:
        """Allow no batches."""
        self.batching, self.batching_reason, self.joined_rows = ALONE, _text(reason), 1

    def call(self, path: str, reason: str) -> None:
        """Set the call path."""
        self.call_path, self.call_path_reason = path, _text(reason)

    def answer_whole(self, reason: str) -> None:
        """Record that an answer belongs to all rows of its request, so that nothing is joined."""
        self.answers, self.decided = WHOLE, True
        self.keep_alone(reason)

    def give_up(self, reason: str) -> None:
        """Record why the remaining questions are not proved; findings stay."""
        why = f"{UNPROVED}: {reason}"
        if self.decided:
            return
        if self.batching_reason.startswith(UNPROVED):
            self.keep_alone(why)
        if self.call_path_reason.startswith(UNPROVED):
            self.call(PYFUNC, why)

    def stop_widening(self, rows: int, reason: str) -> None:
        """Keep the present limit of joined rows."""
        self.pause_at(None)
        self.stopped_at = rows
        self.batching_reason = _text(f"{self.batching_reason}; {reason}")

    def lose(self, lost: int, reason: str) -> None:
        """Record a worker lost in the proof, and why; findings stay."""
        self.lost = lost
        self.give_up(reason)
        self.pause_at(reason)

    def pause_at(self, reason: str | None) -> None:
        """Record why proving more rows is paused, or that it is not (None)."""
        why = self.batching_reason.partition(_NO_MORE_YET)[0]
        if self.batching == JOINED:
            self.batching_reason = _text(f"{why}{_NO_MORE_YET}{reason}") if reason else why


def _text(reason: str) -> str:
    """Return a reason in the form that `parse` accepts: bounded and printable."""
    return "".join(char if char.isprintable() else "?" for char in reason[:_MAX_TEXT])


def longest_call_s(budget_s: float, timeout_s: float) -> float:
    """Return the seconds that one background call may take, by the warm-up's budget."""
    return LONGEST_CALL * min(budget_s, timeout_s)


def merged(known: Proof, later: Proof) -> Proof:
    """Return the findings of two workers of an artifact that proved at the same time.

    A finding that forbids prevails over one that allows, and a decision over its absence. If the
    libraries differ, the later proof prevails.
    """
    if known.made_with != later.made_with:
        return later
    best = max(later, known, key=_weight)
    return replace(
        best,
        lost=max(known.lost, later.lost),
        budget_s=max(known.budget_s, later.budget_s),
        spent_s=max(known.spent_s, later.spent_s),
    )


def _weight(proof: Proof) -> tuple[bool, bool, bool, int, int]:
    return (
        proof.answers == WHOLE,
        proof.decided,
        proof.decided and proof.batching == ALONE,
        -proof.stopped_at if proof.stopped_at else -MAX_ROWS - 1,
        proof.joined_rows,
    )


def parse(value: Any) -> Proof | None:
    """Return an untrusted proof, or None if it is invalid or exceeds a limit."""
    names = {one.name for one in fields(Proof)}
    if not isinstance(value, dict) or value.keys() != names or not _fits(value):
        return None
    return Proof(**value)


def _fits(value: Mapping[str, Any]) -> bool:
    texts = (value["made_with"], value["batching_reason"], value["call_path_reason"])
    flags = (value[name] for name in _FLAGS)
    return (
        all(type(value[name]) is str and value[name] in words for name, words in _WORDS.items())
        and all(_is_within(value[name], *bounds) for name, bounds in _NUMBERS.items())
        and all(_is_text(text) for text in texts)
        and all(type(flag) is bool for flag in flags)
        and all(_is_seconds(value[name]) for name in ("budget_s", "spent_s"))
        and (value["batching"] == JOINED or value["joined_rows"] == 1)
    )


def _is_within(number: Any, least: int, most: int) -> bool:
    return type(number) is int and least <= number <= most


def _is_seconds(number: Any) -> bool:
    return type(number) in {int, float} and 0 <= number <= MAX_ROWS


def _is_text(text: Any) -> bool:
    return type(text) is str and len(text) <= _MAX_TEXT and text.isprintable()


def libraries(description: Mapping[str, Any], python: str) -> str:
    """Return a digest over the versions of Python and of the model's libraries here.

    The libraries are numpy, pandas, MLflow, the flavor's framework, and the artifact's
    requirements.
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
    installed = {
        name: installed_version(name) for name in islice(dict.fromkeys(names), _MAX_LOOKED_UP)
    }
    lines = sorted(f"{name}=={version}" for name, version in installed.items() if version)
    return hashlib.sha256("\n".join([python, *lines]).encode()).hexdigest()
