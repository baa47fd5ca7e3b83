"""What one fetched version is compared with."""

from pathlib import Path

from registry_sync.artifact_store import ArtifactStore
from registry_sync.intake import Brought, Intake, Refused, Stopwatch
from tests.fakes.registry import FakeRegistry


def test_what_the_store_pinned_counts_where_the_ledger_has_no_pin(tmp_path: Path) -> None:
    registry = FakeRegistry()
    seen_first = registry.publish("m", 1)
    store = ArtifactStore(tmp_path)
    store.open()
    intake = Intake(source=registry, fetcher=registry, store=store, require_digest=False)
    listed = registry.version("m", 1)
    assert isinstance(intake.bring(listed, None, watch=Stopwatch()), Brought)
    again = intake.bring(listed, None, watch=Stopwatch())
    assert isinstance(again, Brought)
    assert again.pin.expected_digest == seen_first
    registry.tamper("m", 1)
    altered = intake.bring(listed, None, watch=Stopwatch())
    assert isinstance(altered, Refused)
    assert altered.expected == seen_first
