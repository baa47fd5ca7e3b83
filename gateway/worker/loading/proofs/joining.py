"""Whether requests may be joined into one call of the model: first few rows, then more and more.

Rows are joined only in numbers that were proved together: a model may well answer twenty rows each
for itself, and sort, pad or centre the twenty-first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker.loading import comparison
from gateway.worker.loading.proofs.proof import ALONE, JOINED, PER_ROW, UNKNOWN, WHOLE, Proof
from gateway.worker.loading.proofs.prover import Answer, Ask, Asking
from gateway.worker.rows import outputs
from gateway.worker.rows.inputs import Inputs, join
from gateway.worker.served_model import Call

NOT_PER_ROW = "the answers are not one per row"
_SHARE_OF_FAR_ROWS = 0.25


@dataclass(frozen=True)
class Joining:
    """What was found out.

    Attributes:
        answers: As in `Proof`.
        mode: ``joined``, or ``alone``; and why.
        rows: The most rows that were proved together.
        probabilities: Whether that was proved of the class probabilities too.
    """

    answers: str
    mode: str
    reason: str
    rows: int = 1
    probabilities: bool = False


class _NotJoinedError(Exception):
    """Requests are answered alone. The message says why."""

    def __init__(self, message: str, answers: str = UNKNOWN) -> None:
        super().__init__(message)
        self.answers = answers


def prove(
    calls: Sequence[Call],
    varied: Sequence[Inputs],
    far: Sequence[Inputs],
    said: Any,
    *,
    probabilities: Call | None = None,
) -> Asking[Joining]:
    """Find out whether inputs answer the same alone and joined with others.

    Args:
        calls: The call that serves; then scores, which show an influence that has changed no label
            yet.
        varied: Inputs that differ, the example first.
        far: More to join the example with; what the model does not bear is left out.
        said: What the first call has answered to the example.
        probabilities: The call of the class probabilities, which show the same. One that does not
            answer the example is not proved: requests for probabilities go alone then.
    """
    if outputs.row_count(said) != varied[0].rows:
        return Joining(WHOLE, ALONE, NOT_PER_ROW)
    if len(varied) + len(far) < 2:  # noqa: PLR2004  # two are the fewest that can be joined
        return Joining(UNKNOWN, ALONE, "the input example cannot be varied")
    differs, proved, likely_proved = False, [], False
    beside = [*calls[1:], *([probabilities] if probabilities is not None else [])]
    try:
        for call in [calls[0], *beside]:
            if call is not calls[0]:
                answer = yield Ask(call, varied[0])
                if answer.raised is not None or outputs.row_count(answer.output) != varied[0].rows:
                    continue  # nothing is proved of it, and nothing of it is joined
                said = answer.output
            one = yield from _prove_one(call, varied, far, said)
            proved.append(one.rows)
            differs = differs or one.differs
            likely_proved = likely_proved or call is probabilities
    except _NotJoinedError as error:
        return Joining(error.answers, ALONE, str(error))
    except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
        return Joining(UNKNOWN, ALONE, f"joined rows cannot be compared: {type(error).__name__}")
    if not differs:
        return Joining(PER_ROW, ALONE, "the example's answers do not differ")
    told = "the input example answers the same alone and joined"
    return Joining(PER_ROW, JOINED, told, min(proved), likely_proved)


@dataclass(frozen=True)
class _One:
    """What was found out of one call: rows that were proved together, and if answers differ."""

    rows: int
    differs: bool


def _prove_one(
    call: Call, varied: Sequence[Inputs], far: Sequence[Inputs], said: Any
) -> Asking[_One]:
    """Compare one call's answers; the cheapest question that may settle it comes first.

    Before any joined one comes one alone: the pace of the model is known from it, and no joined
    call is begun that would take longer than there is time for.

    Raises:
        _NotJoinedError: Rows influence each other, or joined ones are not answered.
    """
    example = varied[0]
    answers, rows = [said], example.rows
    if len(varied) > 1:
        rows = sum(one.rows for one in varied)
        alone = [said, (yield from _hear(call, varied[1]))]
        together = yield from _hear(call, join(varied))
        start = 0
        for number, one in enumerate(varied):
            if number == len(alone):
                alone.append((yield from _hear(call, one)))
            _compare(together, start, one, alone[number])
            start += one.rows
        again = yield from _hear(call, join(list(reversed(varied))))
        for one, own in zip(varied, alone, strict=True):
            start -= one.rows
            _compare(again, start, one, own)
        answers.append(together)
    else:
        yield from _hear(call, example)
    beside = yield from _hear_beside(call, example, far)
    for output, start in beside:
        _compare(output, start, example, said)
        answers.append(output)
    if beside and len(varied) == 1:
        rows = min(outputs.row_count(output) or 0 for output, _ in beside)
    return _One(rows, comparison.differ(answers))


def _hear_beside(
    call: Call, example: Inputs, far: Sequence[Inputs]
) -> Asking[list[tuple[Any, int]]]:
    """Return answers to the example between other rows, and at which row of them it begins.

    What the model does not bear is left out.
    """
    heard = []
    if far:
        groups = [[far[0], example, far[-1]]]
        while groups:
            group = groups.pop(0)
            answer = yield Ask(call, join(group))
            if answer.raised is None:
                _count(answer.output, sum(one.rows for one in group))
                heard.append((answer.output, group[0].rows))
            elif group[0] is not group[-1]:
                groups += [[one, example, one] for one in far]
    return heard


def _hear(call: Call, inputs: Inputs) -> Asking[Any]:
    """Return an answer that has a row for each of the inputs.

    Raises:
        _NotJoinedError: There is none.
    """
    answer = yield Ask(call, inputs)
    if answer.raised is not None:
        raise _NotJoinedError(f"joined rows cannot be predicted: {type(answer.raised).__name__}")
    _count(answer.output, inputs.rows)
    return answer.output


def _count(output: Any, rows: int) -> None:
    if outputs.row_count(output) != rows:
        raise _NotJoinedError(NOT_PER_ROW, WHOLE)


def _compare(together: Any, start: int, inputs: Inputs, own: Any) -> None:
    if not comparison.close(outputs.rows_of(together, start, start + inputs.rows), own):
        raise _NotJoinedError("rows influence each other", PER_ROW)


# --- more rows ------------------------------------------------------------------------------------


def widen(
    calls: Sequence[Call],
    varied: Sequence[Inputs],
    far: Sequence[Inputs],
    proof: Proof,
    most_rows: int,
) -> Asking[None]:
    """Prove twice as many rows at a time, up to ``most_rows``; ``proof`` says how many are.

    Each row of a large call is compared with what was answered to it among few, which is proved.
    A call that does not answer these few has answered them before: its word proves nothing.

    Args:
        calls: The call that serves, and others that are proved among few.
        varied: As for `prove`.
        far: As for `prove`.
        proof: Changes with what is found.
        most_rows: Joined at most.
    """
    known = join(varied)
    pools = []
    for call in calls:
        answer = yield Ask(call, known)
        why = _unanswered(answer, known.rows)
        if why is not None:
            proof.stop_widening(known.rows, f"asked again, {why}")
            return
        pools.append((call, answer.output))
    mixed = join([*varied, *far])
    while proof.joined_rows < most_rows:
        rows = min(2 * proof.joined_rows, most_rows)
        for call, output in pools:
            picked = pick(rows, known.rows, mixed.rows)
            answer = yield Ask(call, mixed.take(picked))
            if answer.raised is not None and mixed.rows > known.rows:
                mixed = known  # the model does not bear the others
                picked = pick(rows, known.rows, known.rows)
                answer = yield Ask(call, mixed.take(picked))
            why = _unanswered(answer, rows) or _differs(answer.output, output, picked, known.rows)
            if why is not None:
                proof.stop_widening(rows, f"in {rows} rows {why}")
                return
        proof.joined_rows = rows


def _unanswered(answer: Answer, rows: int) -> str | None:
    """Say why an answer has not one row for each of the inputs; None: it has."""
    if answer.raised is not None:
        return f"they cannot be predicted: {type(answer.raised).__name__}"
    return None if outputs.row_count(answer.output) == rows else NOT_PER_ROW


def pick(rows: int, known: int, there: int) -> list[int]:
    """Return which rows a large call has: the known ones at random, and some that are far off.

    The same for the same numbers.

    Args:
        rows: How many.
        known: Rows to compare, which are numbered first.
        there: All rows.
    """
    import numpy as np

    dice = np.random.default_rng(rows)
    picked = dice.integers(0, known, rows)
    if there > known:
        beside = dice.random(rows) < _SHARE_OF_FAR_ROWS
        picked[beside] = dice.integers(known, there, int(beside.sum()))
    numbers: list[int] = picked.tolist()
    return numbers


def _differs(output: Any, known: Any, picked: Sequence[int], compared: int) -> str | None:
    """Say what is wrong with a large call; None: every known row is answered as among few."""
    places = [place for place, row in enumerate(picked) if row < compared]
    own = outputs.rows_at(known, [picked[place] for place in places])
    try:
        same = comparison.close(outputs.rows_at(output, places), own)
    except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
        return f"answers cannot be compared: {type(error).__name__}"
    return None if same else "the rows influence each other"


def row_bytes(example: Inputs, body_bytes: int) -> int:
    """Return about how many bytes a row takes, as arrays or as a body, whichever is more."""
    arrays = sum(int(array.nbytes) for array in example.arrays.values())
    return max(1, max(arrays, body_bytes) // max(1, example.rows))
