"""What is said of variables that are no settings."""

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
