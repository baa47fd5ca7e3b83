"""Proofs about a model during its warm-up: which, in which order, within a time budget.

The model predicts its example once. Then the cheapest proof comes first: whether requests may be
joined, whether the fast path is exact, and how many rows may be joined. Earlier findings are
reused; what exceeds the budget may be proved in the background.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gateway.worker.flavors import classifiers
from gateway.worker.loading import input_example, perturbation
from gateway.worker.loading.proofs import fast_path, joining
from gateway.worker.loading.proofs.proof import (
    FAST,
    JOINED,
    LONGEST_CALL,
    MAX_LOST,
    PYFUNC,
    Proof,
    libraries,
    parse,
)
from gateway.worker.loading.proofs.prover import Asking, Pace, Prover
from gateway.worker.protocol.messages import Load, Message, Proved, Proving
from gateway.worker.rows import outputs
from gateway.worker.rows.inputs import Inputs, join
from gateway.worker.served_model import Call, ServedModel

_SCIKIT_LEARN = "mlflow.sklearn"


def kept(order: Load) -> Proof:
    """Return the order's proof, if the libraries are the same, or else an empty proof."""
    here = libraries(order.description, platform.python_version())
    proof = parse(order.proof)
    return proof if proof is not None and proof.made_with == here else Proof(made_with=here)


def warm(
    model: ServedModel,
    pyfunc: Any,
    order: Load,
    example: bytes | None,
    *,
    proof: Proof,
    clock: Callable[[], float],
) -> Prover:
    """Predict the example, a body, with one call; return the remaining proof.

    The prover updates ``proof``; the model gets the proved call path.

    Raises:
        WarmUpFailedError: The model failed on its example.
    """
    subject = _Subject(model, pyfunc, order, proof)
    if proof.call_path == FAST:
        subject.take_fast_path()
    if example is None:
        return Prover(subject.prove_nothing(), Pace(), clock)
    warmed = input_example.predict_example(model, example, clock)
    model.proved_params = warmed.inputs.params
    model.proved_form = model.signature.proved(perturbation.compared(warmed.inputs).form())
    return Prover(subject.prove(warmed, len(example)), Pace(warmed.seconds), clock)


def run(prover: Prover, proof: Proof, budget_s: float, report: Callable[[Message], None]) -> None:
    """Prove within the budget, unless that was tried before; a tenth of it is for more rows.

    ``report`` sends a message to the gateway, before and after the proof.
    """
    untried = not prover.over and not proof.decided
    if untried and budget_s == 0:
        proof.give_up("GATEWAY_PROOF_BUDGET_S is 0")
    if not untried or budget_s <= proof.budget_s:
        return
    lost = min(proof.lost + 1, MAX_LOST)
    report(Proving(replace(proof, lost=lost).as_header()))
    prover.run(lambda: not proof.decided and prover.spent_s + prover.expected_s <= budget_s)
    if proof.decided:
        report(Proving(replace(proof, lost=lost, budget_s=budget_s).as_header()))
        limit_s = min(budget_s, prover.spent_s + LONGEST_CALL * budget_s)
        prover.run(lambda: prover.spent_s + prover.expected_s <= limit_s)
    elif prover.broken_off is None:
        proof.give_up(
            f"after {prover.spent_s:.3g} s the next call would take about {prover.expected_s:.3g} "
            f"s, and GATEWAY_PROOF_BUDGET_S is {budget_s:g}"
        )
    if prover.broken_off is not None:
        proof.lose(lost, prover.broken_off)
    if proof.decided or prover.broken_off is None:
        proof.budget_s = budget_s
    report(Proved(proof.as_header()))


def _is_to_widen(proof: Proof, most_rows: int) -> bool:
    """Whether joining more rows is still to be proved."""
    return proof.batching == JOINED and not proof.stopped_at and proof.joined_rows < most_rows


class _Subject:
    """A model under proof."""

    def __init__(self, model: ServedModel, pyfunc: Any, order: Load, proof: Proof) -> None:
        self._model = model
        self._pyfunc = pyfunc
        self._pyfunc_call = model.call
        self._order = order
        self._proof = proof
        self._loader = str(order.description.get("loader_module") or "")
        self._predict_fn = str(order.description.get("predict_fn") or "predict")
        self._probabilities: Callable[[Any], Any] | None = None
        self._scores: Call | None = None
        self._offer_probabilities()
        if self._loader == _SCIKIT_LEARN:
            scores = getattr(pyfunc.get_raw_model(), "decision_function", None)
            self._scores = scores and (lambda inputs: scores(inputs.native()))

    def _offer_probabilities(self) -> None:
        offered = classifiers.probabilities(self._pyfunc, self._loader)
        if isinstance(offered, str):
            self._model.no_probabilities = offered
            return
        self._model.class_names = offered.class_names
        self._probabilities = offered.function
        self._call_probabilities()

    def _call_probabilities(self) -> None:
        if self._probabilities is not None:
            on_arrays = self._proof.probabilities_on_arrays
            self._model.probabilities_call = fast_path.probabilities(
                self._pyfunc, self._probabilities, on_arrays=on_arrays
            )

    def take_fast_path(self) -> None:
        """Use the fast path, which was proved for these bytes and libraries."""
        call = fast_path.take(self._pyfunc, self._pyfunc_call, self._loader, self._predict_fn)
        if call is not None:
            self._model.call = call
        else:
            self._proof.call(PYFUNC, fast_path.UNCALLABLE)

    def prove_nothing(self) -> Asking[None]:
        """Record that there is no input example to prove with."""
        self._proof.keep_alone("there is no input example to prove joining")
        yield from self._choose_path([], [])
        self._proof.decided = True

    def prove(self, warmed: input_example.Example, body_bytes: int) -> Asking[None]:
        """Prove what is not proved yet, the cheapest first."""
        proof, order = self._proof, self._order
        if not fast_path.is_possible(self._loader):
            yield from self._choose_path([], [])  # makes no calls
        most_bytes = order.max_batch_bytes // joining.row_bytes(warmed.inputs, body_bytes)
        most_rows = min(order.max_batch_rows, most_bytes)
        if proof.lost >= MAX_LOST:
            reason = "workers ended, did not come back, or met faults, while they proved it"
            proof.give_up(reason)
            proof.pause_at(reason if _is_to_widen(proof, most_rows) else None)
            return
        varied = perturbation.vary(warmed.inputs)
        whole = self._loader == _SCIKIT_LEARN
        far = perturbation.vary_far(varied[0], whole=whole)
        if not proof.decided:
            own = None
            if outputs.row_count(warmed.output) == warmed.inputs.rows:
                own = outputs.rows_of(warmed.output, 0, varied[0].rows)
            likely = self._model.probabilities_call
            yield from joining.prove(self._calls(), varied, far, own, proof, probabilities=likely)
            further = [*perturbation.scatter(varied[0]), *far] if whole else []
            yield from self._choose_path(varied, further)
            proof.decided = True
        if _is_to_widen(proof, most_rows):
            likely = self._model.probabilities_call if proof.probabilities_joined else None
            yield from joining.widen(self._calls(likely), varied, far, proof, most_rows)

    def _calls(self, *more: Call | None) -> list[Call]:
        """Return the serving call, the call for scores, and ``more``, without None."""
        return [call for call in (self._model.call, self._scores, *more) if call is not None]

    def _choose_path(self, varied: Sequence[Inputs], further: Sequence[Inputs]) -> Asking[None]:
        """Prove the fast path, also on joined rows, since joining was proved with pyfunc."""
        proofs = [*varied, join(varied)] if len(varied) > 1 else varied
        call, reason = yield from fast_path.choose(
            self._pyfunc,
            self._pyfunc_call,
            self._loader,
            self._predict_fn,
            proofs,
            further=further,
        )
        self._proof.call(PYFUNC if call is None else FAST, reason)
        self._model.call = call or self._pyfunc_call
        if call is not None and self._probabilities is not None:
            self._proof.probabilities_on_arrays = yield from fast_path.choose_probabilities(
                self._pyfunc, self._probabilities, proofs
            )
            self._call_probabilities()
