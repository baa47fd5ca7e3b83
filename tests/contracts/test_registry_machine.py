"""Random events of a registry: no caller is answered with bytes that the version does not mean."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from gateway.contract import AliasRef
from registry_sync.domain import Activation, LedgerView, Quarantine, creation
from registry_sync.domain.aspired import AspiredVersion
from registry_sync.planning import admissibility, snapshot
from tests.contracts.registry_machine import Machine

SOAK = os.environ.get("REGISTRY_GATEWAY_SOAK", "") not in {"", "0"}
RUNS, STEPS = (480, 50) if SOAK else (12, 40)
RUNS_UNTIL_FOUND = 200
HAPPENS = {
    *("made anew, seen", "made anew, unseen", "renamed", "altered", "alias removed"),
    "renamed over a used name",
    *("ledger lost", "table lost", "activated by poll", "activated by recovery"),
    *("activated by operator", "settled", "follows", "quarantined", "serves its predecessor"),
    *("accepted: accepted", "not written", "without marks"),
}
HAPPENS_SOON = {"made anew, unseen", "renamed", "altered", "activated by poll", "follows"}


def play(runs: int) -> Counter[str]:
    """Let the machine play; return what happened.

    Raises:
        AssertionError: A run did what the model forbids.
    """
    Machine.tally, Machine.forbidden = Counter(), []
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=runs,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                # To shrink what depends on threads takes minutes and rarely ends smaller.
                phases=(Phase.generate,),
                print_blob=True,
            ),
        )
    except Flaky:
        # A run that failed is played again, and its threads may take another order then.
        if not Machine.forbidden:
            raise
        raise Machine.forbidden[0] from None
    print(dict(Machine.tally))
    return Machine.tally


def test_no_event_of_a_registry_makes_wrong_bytes_answer() -> None:
    tally = play(RUNS)
    assert tally["steps"] >= (20_000 if SOAK else 1)
    assert {what for what in (HAPPENS if SOAK else HAPPENS_SOON) if not tally[what]} == set()


# --- faults that are put back ---------------------------------------------------------------------


def any_creation(_recorded: str | None, _now: str) -> bool:
    """A version is its name and its number."""
    return True


def lost_or_taken_away(of: snapshot.Snapshot, model: str, alias: str) -> Activation | None:
    """An alias that was taken away is as good as lost."""
    return of.ledger.last_active.get(AliasRef(model, alias))


def quarantine_of_any_creation(listed: AspiredVersion, ledger: LedgerView) -> Quarantine | None:
    """A quarantine goes on for whatever has the number."""
    return ledger.quarantines.get((listed.model, listed.version))


FAULTS = {
    "a version is its name and number": (
        (creation, "is_of_creation", any_creation),
        (admissibility, "is_of_creation", any_creation),
    ),
    "what is withdrawn is lost": ((snapshot.Snapshot, "lost", lost_or_taken_away),),
    "made anew is altered": ((admissibility, "quarantine_of", quarantine_of_any_creation),),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_put_back_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for patch in FAULTS[fault]:
        monkeypatch.setattr(*patch)
    with pytest.raises(AssertionError):
        play(RUNS_UNTIL_FOUND)
