"""Which of a registry's aliases are followed."""

import pytest

from registry_sync.domain import LatestPolicy
from registry_sync.sources.aliases import read_aliases

STATUSES = {1: "READY", 2: "READY", 3: "PENDING_REGISTRATION"}


@pytest.mark.parametrize(
    ("policy", "listed", "has_latest"),
    [
        ("never", {}, False),
        ("never", {"champion": 1}, False),
        ("without_aliases", {}, True),
        ("without_aliases", {"champion": 1}, False),
        ("without_aliases", {"champion": 3}, False),
        ("without_aliases", {"champion": "none"}, False),
        ("without_aliases", {"latest": 1}, True),
        ("always", {}, True),
        ("always", {"champion": 1}, True),
    ],
)
def test_the_policy_says_which_models_have_latest(
    policy: LatestPolicy, listed: dict[str, object], has_latest: bool
) -> None:
    aliases, _, _ = read_aliases(listed, STATUSES, policy)
    assert aliases.get("latest") == (2 if has_latest else None)


def test_a_model_without_ready_versions_has_no_latest() -> None:
    assert read_aliases({}, {1: "PENDING_REGISTRATION"}, "always") == ({}, set(), [])
