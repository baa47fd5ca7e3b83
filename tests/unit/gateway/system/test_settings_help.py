"""What is said of variables that are no settings."""

import pytest
from pydantic_settings import BaseSettings

import gateway.settings
import registry_sync.settings
from gateway.system.settings_help import misnamed_settings, settings_help
from registry_sync.settings import FORMER_SETTINGS, SyncSettings

PREFIX = "REGISTRY_SYNC_"


def test_names_that_are_no_setting_are_reported_with_the_nearest() -> None:
    names = ("SETTLE_S", "SWEEP_INTERVAL_S", "LOG_LEVELL", "OF_ANOTHER", "LOG_LEVEL")
    variables = [PREFIX + name for name in names] + ["ANOTHER_LOG_LEVELL"]
    assert list(misnamed_settings(SyncSettings, variables, FORMER_SETTINGS)) == [
        f"{PREFIX}LOG_LEVELL is ignored: no setting has this name; {PREFIX}LOG_LEVEL may be meant",
        f"{PREFIX}OF_ANOTHER is ignored: no setting has this name",
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


def test_variables_that_kubernetes_makes_for_a_service_are_not_reported() -> None:
    names = (
        *("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"),
        *("PUBLIC_SERVICE_HOST", "PUBLIC_PORT"),
    )
    variables = [f"GATEWAY_{name}" for name in names]
    assert list(misnamed_settings(gateway.settings.GatewaySettings, variables, {})) == []


def test_a_setting_with_a_second_name_is_meant_by_the_name_that_it_has() -> None:
    (reason,) = misnamed_settings(SyncSettings, [f"{PREFIX}MLFLOW_TRACKING_URI"], {})
    assert reason.endswith("; MLFLOW_TRACKING_URI may be meant")


def test_a_default_that_follows_from_another_is_shown_with_it() -> None:
    settings = gateway.settings.GatewaySettings
    (line,) = (one for one in settings_help(settings) if one.startswith("GATEWAY_MAX_RESIDENT "))
    assert line.startswith(f"GATEWAY_MAX_RESIDENT ({settings().max_resident}): ")
