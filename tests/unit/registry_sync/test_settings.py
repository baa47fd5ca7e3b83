"""Settings that are refused, and what their users are told."""

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from registry_sync.cli import app
from registry_sync.settings import SyncSettings

SECRET = "pa55word"
VARIABLES = ("REGISTRY_SYNC_TRACKING_URI", "MLFLOW_TRACKING_URI")


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_password_in_the_registrys_url_is_refused_and_not_repeated(variable: str) -> None:
    environ = dict.fromkeys(VARIABLES) | {variable: f"https://ann:{SECRET}@mlflow.example:5000/x"}
    done = CliRunner().invoke(app.app, ["control-plane"], env=environ)
    assert done.exit_code == 2
    assert "REGISTRY_SYNC_TRACKING_URI: it must be a URL without user, password" in done.stderr
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert SECRET not in done.output + done.stderr


def test_a_registry_in_s3_names_its_bucket() -> None:
    with pytest.raises(ValidationError, match="must name its bucket: s3://bucket/prefix"):
        SyncSettings(tracking_uri="s3://")


def test_a_refused_setting_does_not_repeat_what_was_set() -> None:
    with pytest.raises(ValidationError) as refused:
        SyncSettings(tracking_uri=f"http://{SECRET}@host")
    assert SECRET not in str(refused.value)


def test_a_promotion_window_that_cannot_be_read_is_named_with_its_reason() -> None:
    window = "0 9 * * 1-5 PT8H Europe/Berlin"
    done = CliRunner().invoke(
        app.app, ["control-plane"], env={"REGISTRY_SYNC_PROMOTION_WINDOW": window}
    )
    assert done.exit_code == 2
    assert f"REGISTRY_SYNC_PROMOTION_WINDOW: the promotion window '{window}'" in done.stderr
    assert "a day of the week must be a name" in done.stderr
