"""What may go: only what nothing needs."""

from dataclasses import fields
from typing import Any

import pytest

from registry_sync.retention import Kept, removable

NOW = 1_000_000.0


@pytest.mark.parametrize(
    "reason", [field.name for field in fields(Kept) if field.name != "previous"]
)
def test_every_reason_keeps_its_digest(reason):
    reasons: dict[str, Any] = {reason: frozenset({"a"})}
    kept = Kept(**reasons)
    assert removable(["a", "b"], kept, now=NOW, rollback_window_s=10) == {"b"}


@pytest.mark.parametrize(("left_ago_s", "goes"), [(0, False), (9.9, False), (10, True), (11, True)])
def test_previous_stays_for_the_rollback_window(left_ago_s, goes):
    kept = Kept(previous={"a": NOW - left_ago_s})
    assert ("a" in removable(["a"], kept, now=NOW, rollback_window_s=10)) is goes


def test_previous_that_is_needed_for_another_reason_stays():
    kept = Kept(previous={"a": 0}, active=frozenset({"a"}))
    assert removable(["a"], kept, now=NOW, rollback_window_s=10) == frozenset()
