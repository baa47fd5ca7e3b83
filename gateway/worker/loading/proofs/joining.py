"""The proof that requests may be joined into one call: first few rows, then more and more.

Rows are joined only in proved numbers: a model may predict each of twenty rows independently, and
sort, pad or centre the twenty-first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.worker.loading import comparison
from gateway.worker.loading.proofs.proof import PER_ROW, UNKNOWN, WHOLE, Proof
from gateway.worker.loading.proofs.prover import Answer, Asking, Question
from gateway.worker.rows import outputs
from gateway.worker.rows.inputs import Inputs, join
from gateway.worker.served_model import Call

NOT_PER_ROW = "the answers are not one per row"
_SHARE_OF_FAR_ROWS = 0.25


class _NotJoinedError(Exception):
    """Requests must be predicted alone. The message is the reason."""

    def __init__(self, message: str, answers: str = UNKNOWN) -> None:
        super().__init__(message)
        self.answers = answers


def prove(
    calls: Sequence[Call],
    varied: Sequence[Inputs],
    far: Sequence[Inputs],
    own: Any,
    proof: Proof,
    *,
    probabilities: Call | None = None,
) -> Asking[None]:
    """Prove that the answers to inputs are the same alone and joined with others.

    Args:
        calls: The serving call; then scores, which reveal influences that change no label.
        varied: Different inputs, the example first.
        far: Further inputs to join the example with; those that the model rejects are skipped.
        own: The serving call's answer to the example.
        proof: The findings to update.
        probabilities: The call for class probabilities, or None. If it fails on the example,
            requests for probabilities are not joined.
    """
    answers, proved_likely = PER_ROW, False
    try:
        rows, proved_likely = yield from _prove_each(calls, varied, far, own, probabilities)
    except _NotJoinedError as error:
        answers = error.answers
        proof.keep_alone(str(error))
    except Exception as error:  # noqa: BLE001  # the model's objects may raise anything
        answers = UNKNOWN
        proof.keep_alone(f"joined rows cannot be compared: {type(error).__name__}")
    else:
        proof.join(rows, "the input example answers the same alone and joined")
    proof.answers, proof.probabilities_joined = answers, proved_likely


def _prove_each(
    calls: Sequence[Call],
    varied: Sequence[Inputs],
    far: Sequence[Inputs],
    own: Any,
    probabilities: Call | None,
) -> Asking[tuple[int, bool]]:
    """Return the rows proved together, and whether class probabilities were proved too.

    Raises:
        _NotJoinedError: As of `_prove_one`; or nothing can be proved with these inputs.
    """
    _count(own, varied[0].rows)
    if len(varied) + len(far) < 2:  # noqa: PLR2004  # two are the fewest that can be joined
        raise _NotJoinedError("the input example cannot be varied")
    differ, proved, proved_likely = False, [], False
    for call in [*calls, *([probabilities] if probabilities is not None else [])]:
        if call is not calls[0]:
            answer = yield Question(call, varied[0])
            if answer.raised is not None or outputs.row_count(answer.output) != varied[0].rows:
                continue  # not proved, so its requests are not joined
            own = answer.output
        rows, answers_differ = yield from _prove_one(call, varied, far, own)
        proved.append(rows)
        differ = differ or answers_differ
        proved_likely = proved_likely or call is probabilities
    if not differ:
        raise _NotJoinedError("the example's answers do not differ", PER_ROW)
    return min(proved), proved_likely


def _prove_one(
    call: Call, varied: Sequence[Inputs], far: Sequence[Inputs], own: Any
) -> Asking[tuple[int, bool]]:
    """Return the rows proved together, and whether answers differ, of one call.

    The cheapest decisive comparison comes first; an input alone precedes any joined call, to show
    the model's pace.

    Raises:
        _NotJoinedError: Rows influence each other, or a joined call fails.
    """
    example = varied[0]
    answers, rows = [own], example.rows
    if len(varied) > 1:
        rows = sum(one.rows for one in varied)
        alone = [own, (yield from _answer_to(call, varied[1]))]
        together = yield from _answer_to(call, join(varied))
        start = 0
        for number, one in enumerate(varied):
            if number == len(alone):
                alone.append((yield from _answer_to(call, one)))
            _compare(together, start, one, alone[number])
            start += one.rows
        again = yield from _answer_to(call, join(list(reversed(varied))))
        for one, its_own in zip(varied, alone, strict=True):
            start -= one.rows
            _compare(again, start, one, its_own)
        answers.append(together)
    else:
        yield from _answer_to(call, example)
    beside = yield from _answers_among_others(call, example, far)
    for output, start in beside:
        _compare(output, start, example, own)
        answers.append(output)
    if beside and len(varied) == 1:
        rows = min(outputs.row_count(output) or 0 for output, _ in beside)
    return rows, comparison.differ(answers)


def _answers_among_others(
    call: Call, example: Inputs, far: Sequence[Inputs]
) -> Asking[list[tuple[Any, int]]]:
    """Return answers to the example between other rows, with its first row in each.

    Inputs that the model rejects are skipped.
    """
    found = []
    if far:
        groups = [[far[0], example, far[-1]]]
        while groups:
            group = groups.pop(0)
            answer = yield Question(call, join(group))
            if answer.raised is None:
                _count(answer.output, sum(one.rows for one in group))
                found.append((answer.output, group[0].rows))
            elif group[0] is not group[-1]:
                groups += [[one, example, one] for one in far]
    return found


def _answer_to(call: Call, inputs: Inputs) -> Asking[Any]:
    """Return an answer with one item per row.

    Raises:
        _NotJoinedError: The call failed, or its answer has another number of items.
    """
    answer = yield Question(call, inputs)
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
    """Prove twice as many rows at a time, up to ``most_rows``, and update ``proof``.

    Each known row of a large call is compared with its answer in the small call, which is proved
    for all ``calls``. If that small call now fails, nothing more can be proved.
    """
    known = join(varied)
    pools = []
    for call in calls:
        answer = yield Question(call, known)
        why = _unanswered(answer, known.rows)
        if why is not None:
            proof.stop_widening(known.rows, f"called again, {why}")
            return
        pools.append((call, answer.output))
    mixed = join([*varied, *far])
    while proof.joined_rows < most_rows:
        rows = min(2 * proof.joined_rows, most_rows)
        for call, output in pools:
            picked = pick(rows, known.rows, mixed.rows)
            answer = yield Question(call, mixed.take(picked))
            if answer.raised is not None and mixed.rows > known.rows:
                mixed = known  # the model rejects the others
                picked = pick(rows, known.rows, known.rows)
                answer = yield Question(call, mixed.take(picked))
            why = _unanswered(answer, rows) or _differs(answer.output, output, picked, known.rows)
            if why is not None:
                proof.stop_widening(rows, f"in {rows} rows {why}")
                return
        proof.joined_rows = rows


def _unanswered(answer: Answer, rows: int) -> str | None:
    """Return why an answer does not have one item per row, or None."""
    if answer.raised is not None:
        return f"they cannot be predicted: {type(answer.raised).__name__}"
    return None if outputs.row_count(answer.output) == rows else NOT_PER_ROW


def pick(rows: int, known: int, total: int) -> list[int]:
    """Return ``rows`` rows of ``total``: known ones at random, and some far ones; deterministic.

    The first ``known`` rows are known.
    """
    import numpy as np

    dice = np.random.default_rng(rows)
    picked = dice.integers(0, known, rows)
    if total > known:
        beside = dice.random(rows) < _SHARE_OF_FAR_ROWS
        picked[beside] = dice.integers(known, total, int(beside.sum()))
    numbers: list[int] = picked.tolist()
    return numbers


def _differs(output: Any, known: Any, picked: Sequence[int], compared: int) -> str | None:
    """Return how a large call differs from the small one in the known rows, or None."""
    positions = [position for position, row in enumerate(picked) if row < compared]
    own = outputs.rows_at(known, [picked[position] for position in positions])
    try:
        same = comparison.close(outputs.rows_at(output, positions), own)
    except Exception as error:  # noqa: BLE001  # the model's objects may raise anything
        return f"answers cannot be compared: {type(error).__name__}"
    return None if same else "the rows influence each other"


def row_bytes(example: Inputs, body_bytes: int) -> int:
    """Return the approximate bytes per row, as arrays or as a body, whichever is more."""
    arrays = sum(int(array.nbytes) for array in example.arrays.values())
    return max(1, max(arrays, body_bytes) // max(1, example.rows))
