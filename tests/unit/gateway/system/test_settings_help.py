"""What is said of variables that are no settings."""

import pytest
from pydantic_settings import BaseSettings

import gateway.settings
import registry_sync.settings
from gateway.system.settings_help import misnamed_settings
from registry_sync.settings import FORMER_SETTINGS, SyncSettings

PREFIX = "REGISTRY_SYNC_"


def test_former_and_misspelt_names_are_reported_and_others_are_not() -> None:
    names = ("SETTLE_S", "SWEEP_INTERVAL_S", "LOG_LEVELL", "OF_SOMEBODY_ELSE", "LOG_LEVEL")
    variables = [PREFIX + name for name in names]
    assert list(misnamed_settings(SyncSettings, variables, FORMER_SETTINGS)) == [
        f"{PREFIX}LOG_LEVELL is ignored: no setting has this name; {PREFIX}LOG_LEVEL may be meant",
        f"{PREFIX}SETTLE_S is ignored: it is called {PREFIX}UPLOAD_STABLE_S now",
        f"{PREFIX}SWEEP_INTERVAL_S is ignored: it is no longer a setting",
    ]


@pytest.mark.parametrize(
    ("settings", "former"),
    [
        (gateway.settings.GatewaySettings, gateway.settings.FORMER_SETTINGS),
        (registry_sync.settings.SyncSettings, registry_sync.settings.FORMER_SETTINGS),
    ],
)
def test_a_former_name_that_is_like_a_present_one_is_not_taken_for_it(
    settings: type[BaseSettings], former: dict[str, str]
) -> None:
    reasons = list(misnamed_settings(settings, former, former))
    assert len(reasons) == len(former), "none of them is a setting again"
    assert not [reason for reason in reasons if "may be meant" in reason]
