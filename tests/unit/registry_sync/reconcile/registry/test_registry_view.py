"""Which listing counts, when everything is asked for, and what a hint about one model does."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry_sync.artifacts.store import ArtifactStore
from registry_sync.ledger.journal import Journal
from registry_sync.ledger.ledger import Ledger
from registry_sync.reconcile.registry import registry_view
from registry_sync.reconcile.registry.registry_view import Listings
from registry_sync.system.threads import Threads
from tests.fakes.registry import FakeRegistry

M, OTHER, A = "churn", "fraud", "champion"


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    for model in (M, OTHER):
        for version in (1, 2):
            made.publish(model, version)
        made.without_latest(model)
        made.point(model, A, 1)
    return made


@pytest.fixture
async def listings(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Listings]:
    threads = Threads()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=time.time)
    ledger.ensure()
    store = ArtifactStore(tmp_path, time.time)
    store.open()
    yield Listings(
        source=registry,
        threads=threads,
        store=store,
        ledger=ledger,
        journal=Journal(ledger, threads),
        clock=time.time,
    )
    ledger.close()
    assert threads.close(timeout_s=5)


async def test_everything_is_asked_for_at_first_now_and_then_and_on_demand(
    listings: Listings, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_view, "THOROUGH_POLL_EVERY", 3)
    thorough = []
    for on_demand in (False, False, False, False, False, True, False):
        before = registry.thorough
        await listings.poll("poll", thorough=on_demand)
        thorough.append(registry.thorough > before)
    assert thorough == [True, False, False, True, False, True, False]


async def test_a_poll_that_failed_was_not_thorough(
    listings: Listings, registry: FakeRegistry
) -> None:
    registry.down = True
    for _ in range(5):
        assert not await listings.poll("poll")
    registry.down = False
    await listings.poll("poll")
    assert registry.thorough == 1


async def test_a_hint_brings_one_model_up_to_date_and_says_whose_wish_it_was(
    listings: Listings, registry: FakeRegistry
) -> None:
    await listings.poll("poll")
    listed_at = listings.listed_at
    registry.now += 60
    registry.point(M, A, 2)
    registry.point(OTHER, A, 2)
    assert await listings.look(M, "webhook")
    assert registry.asked == [M]
    assert {name: one.aliases[A] for name, one in listings.aspired.models.items()} == {
        M: 2,
        OTHER: 1,
    }
    assert listings.initiators(M) == {(M, A): "webhook"}
    assert listings.initiators(OTHER) == {(OTHER, A): "poll"}
    assert (listings.count, listings.listed_at) == (1, listed_at)
    await listings.poll("poll")
    assert listings.initiators(M) == {(M, A): "webhook"}
    assert listings.initiators(OTHER) == {(OTHER, A): "poll"}
    assert listings.aspired.models[OTHER].aliases[A] == 2


async def test_a_hint_takes_nothing_away_that_only_the_next_poll_may(
    listings: Listings, registry: FakeRegistry
) -> None:
    await listings.poll("poll")
    registry.forget(OTHER)
    await listings.poll("poll")  # missing for the first time
    registry.point(M, A, 2)
    await listings.look(M, "webhook")
    assert OTHER in listings.aspired.models
    await listings.look(OTHER, "webhook")
    assert OTHER in listings.aspired.models
    await listings.poll("poll")
    assert OTHER not in listings.aspired.models


async def test_a_hint_while_the_registry_is_down_changes_nothing_and_is_said(
    listings: Listings, registry: FakeRegistry
) -> None:
    await listings.poll("poll")
    registry.down = True
    assert not await listings.look(M, "webhook")
    assert listings.error is not None
    assert listings.aspired.models[M].aliases[A] == 1
