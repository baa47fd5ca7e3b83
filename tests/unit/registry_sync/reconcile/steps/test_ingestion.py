"""What one fetched version is compared with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_sync.artifacts.description import describe
from registry_sync.artifacts.store import ArtifactStore
from registry_sync.errors import ArtifactTooLargeError, IncompleteArtifactError
from registry_sync.reconcile.steps import ingestion as intake_module
from registry_sync.reconcile.steps.ingestion import (
    IngestedArtifact,
    Ingestion,
    Order,
    RefusedArtifact,
)
from registry_sync.reconcile.steps.outcome import Stopwatch
from tests.fakes.registry import FakeRegistry


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def bring(
    tmp_path: Path, registry: FakeRegistry
) -> Callable[[], IngestedArtifact | RefusedArtifact]:
    """Bring version 1 of ``m``, which nobody has pinned."""
    store = ArtifactStore(tmp_path)
    store.open()
    intake = Ingestion(source=registry, fetcher=registry, store=store, require_digest=False)
    return lambda: intake.bring(Order(registry.version("m", 1), "c"), watch=Stopwatch())


def test_what_the_store_pinned_counts_where_the_ledger_has_no_pin(tmp_path: Path) -> None:
    registry = FakeRegistry()
    seen_first = registry.publish("m", 1)
    store = ArtifactStore(tmp_path)
    store.open()
    intake = Ingestion(source=registry, fetcher=registry, store=store, require_digest=False)
    listed = registry.version("m", 1)
    assert isinstance(intake.bring(Order(listed, "c"), watch=Stopwatch()), IngestedArtifact)
    again = intake.bring(Order(listed, "c"), watch=Stopwatch())
    assert isinstance(again, IngestedArtifact)
    assert again.accepted.expected_digest == seen_first
    registry.tamper("m", 1)
    altered = intake.bring(Order(listed, "c"), watch=Stopwatch())
    assert isinstance(altered, RefusedArtifact)
    assert "accepted" in altered.reason


def test_what_is_wrong_is_said_to_be_wrong_however_broken_it_is(registry, bring) -> None:
    stamp = registry.publish("m", 1)
    registry.stamp("m", 1, stamp)
    registry.files["fake:/m/1"]["MLmodel"] = b"["
    found = bring()
    assert isinstance(found, RefusedArtifact)
    assert found.found == registry.digest("m", 1)
    assert "stamped" in found.reason


def test_nothing_of_wrong_bytes_is_described(registry, bring, monkeypatch) -> None:
    registry.publish("m", 1, stamp="sha256:" + "0" * 64)
    monkeypatch.setattr(intake_module, "describe", None)
    assert isinstance(bring(), RefusedArtifact)


@pytest.mark.parametrize("stamped", [True, False])
def test_files_that_are_missing_are_waited_for_whatever_digest_the_others_have(
    registry, bring, stamped
) -> None:
    digest = registry.publish("m", 1)
    if stamped:
        registry.stamp("m", 1, digest)
    late = registry.files["fake:/m/1"].pop("data/weights")
    with pytest.raises(IncompleteArtifactError, match="'data'"):
        bring()
    registry.files["fake:/m/1"]["data/weights"] = late
    assert isinstance(bring(), IngestedArtifact)


@pytest.mark.parametrize("text", [b"[" * 30_000, b"a: &a {k: v}\nb: {<<: [*a, *a]}", b"flavors: 1"])
def test_an_mlmodel_that_cannot_be_read_is_refused_for_good(registry, bring, text) -> None:
    registry.publish("m", 1)
    registry.files["fake:/m/1"]["MLmodel"] = text
    found = bring()
    assert isinstance(found, RefusedArtifact)
    assert found.reason.startswith("MLmodel cannot be read")


@pytest.mark.parametrize("stamped", [True, False])
def test_half_an_upload_is_neither_accepted_nor_wrong(registry, bring, stamped) -> None:
    digest = registry.publish("m", 1)
    late = registry.files["fake:/m/1"]
    late["data/more"] = b"not named by MLmodel"
    half = {path: late[path] for path in ("MLmodel", "data/weights")}
    if stamped:
        registry.stamp("m", 1, registry.digest("m", 1))
    registry.files["fake:/m/1"] = half
    registry.whole = registry.stable = False
    with pytest.raises(IncompleteArtifactError, match="the upload may be unfinished"):
        bring()
    registry.files["fake:/m/1"] = late
    registry.stable = not stamped  # a digest needs no time
    found = bring()
    assert isinstance(found, IngestedArtifact)
    assert found.artifact.digest == registry.digest("m", 1) != digest


def test_what_the_registry_knows_to_be_whole_waits_for_nothing(registry, bring) -> None:
    registry.publish("m", 1)
    registry.stable = False
    assert isinstance(bring(), IngestedArtifact)


@pytest.mark.parametrize("knows", ["whole", "stable"])
def test_other_bytes_are_wrong_once_the_upload_is_known_to_be_done(registry, bring, knows) -> None:
    registry.publish("m", 1, stamp="sha256:" + "0" * 64)
    registry.whole, registry.stable = knows == "whole", knows == "stable"
    assert isinstance(bring(), RefusedArtifact)


def test_a_refusal_is_of_the_bytes_that_came_however_soon_they_are_repaired(
    registry, bring, monkeypatch
) -> None:
    registry.publish("m", 1)
    good = registry.files["fake:/m/1"]["MLmodel"]
    registry.files["fake:/m/1"]["MLmodel"] = b"["
    listing = registry.remote_listing("fake:/m/1")

    def describe_late(fetched):
        registry.files["fake:/m/1"]["MLmodel"] = good
        return describe(fetched)

    monkeypatch.setattr(intake_module, "describe", describe_late)
    found = bring()
    assert isinstance(found, RefusedArtifact)
    assert found.listing == listing != registry.remote_listing("fake:/m/1")


@pytest.mark.parametrize("listing", ["as it was", None])
def test_what_is_refused_before_it_came_has_the_listing_that_was_refused(
    registry, bring, listing
) -> None:
    registry.publish("m", 1)
    registry.fetch_error = ArtifactTooLargeError("too large")
    registry.fetch_error.listing = listing
    found = bring()
    assert isinstance(found, RefusedArtifact)
    assert found.listing == listing
