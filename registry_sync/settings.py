"""Settings of the control plane, from the environment. Limits carry their unit in the name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.system import NO_LONGER_A_SETTING
from gateway.system.logs import names_in, names_user, passwords_in
from registry_sync.domain import LatestPolicy, parse_windows

_DEFAULT_NODE_DIR = Path(".registry-gateway")
_GIB = 2**30

MAX_ARTIFACT_FILES = 10_000
"""Most files of one artifact."""
SWEEP_INTERVAL_S = 300.0
"""Time between two clean-ups of artifacts, environments and history."""
ENVIRONMENT_TIMEOUT_S = 1800.0
"""Longest build of one own environment."""
STAGE_TIMEOUT_S = 3 * 3600.0
"""Longest wait for the outcome of a stage: the gateway waits, loads and warms up within its own
limits, each of which is at most an hour."""

FORMER_SETTINGS = {
    **dict.fromkeys(
        (
            "REGISTRY_SYNC_ENVIRONMENT_TIMEOUT_S",
            "REGISTRY_SYNC_FETCH_TIMEOUT_S",
            "REGISTRY_SYNC_MAX_ARTIFACT_FILES",
            "REGISTRY_SYNC_STAGES",
            "REGISTRY_SYNC_STAGE_TIMEOUT_S",
            "REGISTRY_SYNC_SWEEP_INTERVAL_S",
            "REGISTRY_SYNC_THOROUGH_POLL_EVERY",
        ),
        NO_LONGER_A_SETTING,
    ),
    "REGISTRY_SYNC_ROLLBACK_WINDOW_S": "it is called REGISTRY_SYNC_ROLLBACK_RETENTION_S now",
    "REGISTRY_SYNC_SETTLE_S": "it is called REGISTRY_SYNC_UPLOAD_STABLE_S now",
}
"""Why a variable is ignored, by the former names of settings."""
_SHORTEST_FETCH_LIMIT_S = 3600.0
_SLOWEST_FETCH_BYTES_PER_S = 6 * 2**20


class SyncSettings(BaseSettings):
    """All settings; each variable has the prefix ``REGISTRY_SYNC_``."""

    model_config = SettingsConfigDict(
        env_prefix="REGISTRY_SYNC_", populate_by_name=True, hide_input_in_errors=True
    )

    node_dir: Path = Field(
        _DEFAULT_NODE_DIR, description="The node's folder, shared with its gateway."
    )
    runtime_dir: Path | None = Field(
        None,
        description="Folder of both planes' sockets, such as /run/registry-gateway, the same as "
        "GATEWAY_RUNTIME_DIR; empty: the node's folder.",
    )
    tracking_uri: str = Field(
        "http://127.0.0.1:5000",
        min_length=1,
        validation_alias=AliasChoices("REGISTRY_SYNC_TRACKING_URI", "MLFLOW_TRACKING_URI"),
        description="The MLflow server whose registry is followed, or s3://bucket/prefix for a "
        "registry without MLflow; MLFLOW_TRACKING_URI is read too.",
    )
    poll_interval_s: PositiveFloat = Field(
        30.0, description="Seconds between two listings of the registry."
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of the ledger; empty: SQLite in the node's folder."
    )
    require_digest: bool = Field(
        False, description="Refuse versions whose publisher stamped no digest."
    )
    upload_stable_s: float = Field(
        5.0,
        ge=0,
        description="Seconds without a change after which an upload counts as complete, unless "
        "a digest, an S3 registry's manifest or MLflow (of a model that it logged) shows that it "
        "is.",
    )
    rollback_retention_s: float = Field(
        3600.0, ge=0, description="Seconds for which the bytes that an alias left stay on disk."
    )
    max_artifact_bytes: PositiveInt = Field(
        20 * _GIB,
        description="Most bytes of one artifact. A fetch may take an hour, or as long as so many "
        "bytes take at 6 MiB/s.",
    )
    disk_floor_bytes: int = Field(
        _GIB, ge=0, description="Free bytes that fetching leaves on the file system."
    )
    disk_budget_bytes: int = Field(
        0,
        ge=0,
        description="Most bytes of artifacts on this node, fetches under way included; 0: as many "
        "as the floor leaves room for.",
    )
    dependencies: Literal["ignore", "warn", "refuse"] = Field(
        "warn",
        description="Reaction to a version that requires other libraries than are installed here: "
        "ignore, warn, or refuse (it is not loaded beside them).",
    )
    signature_change: Literal["ignore", "warn", "refuse"] = Field(
        "warn",
        description="Reaction to a new version with another signature: ignore, warn, or refuse "
        "(the alias stays if the change breaks callers).",
    )
    latest: LatestPolicy = Field(
        "without_aliases",
        description="Which models have the alias 'latest', their highest version, which then "
        "stands in for a missing default alias: never, without_aliases (those that have no other "
        "alias), or always.",
    )
    promotion_window: str = Field(
        "",
        description="When the registry may promote an alias that is active, such as "
        "'0 9 * * mon-fri PT8H Europe/Berlin': crontab, duration and time zone; several with ';' "
        "between them; empty: always.",
    )
    operations_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the operations listener binds."
    )
    operations_port: int = Field(
        8081, ge=0, le=65535, description="Its TCP port; 0: there is only the Unix socket."
    )
    operations_token: SecretStr | None = Field(
        None, description="Token of operators over TCP; empty: they are refused there."
    )
    mlflow_webhook_secret: SecretStr | None = Field(
        None, description="Secret of MLflow's webhook signatures; empty: no such webhook."
    )
    s3_webhook_token: SecretStr | None = Field(
        None, description="Token of S3's event notifications; empty: no such webhook."
    )
    reload_secret: SecretStr | None = Field(
        None, description="Secret of the signatures of CI's reloads; empty: no such webhook."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="'auto': console on a terminal, JSON elsewhere."
    )

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str) -> str:
        """Refuse ``s3://`` without a bucket, and a user, password or query: the URL is shown."""
        if urlsplit(uri).scheme == "s3" and not urlsplit(uri).netloc:
            raise ValueError("a registry in S3 must name its bucket: s3://bucket/prefix")
        if names_user(uri) or urlsplit(uri).query:
            raise ValueError(
                "it must be a URL without user, password and query, which logs and errors would "
                "show: take them out, also of MLFLOW_TRACKING_URI, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        return uri

    @field_validator("promotion_window")
    @classmethod
    def _with_windows(cls, text: str) -> str:
        """Refuse promotion windows that cannot be read."""
        parse_windows(text)
        return text

    @property
    def fetch_timeout_s(self) -> float:
        """The longest fetch of one artifact, its listings included."""
        return max(_SHORTEST_FETCH_LIMIT_S, self.max_artifact_bytes / _SLOWEST_FETCH_BYTES_PER_S)

    @property
    def ledger_url(self) -> str:
        """The ledger's URL: the setting, or SQLite in the node's folder."""
        if self.database_url:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.node_dir.absolute() / 'ledger.db'}"

    @property
    def secrets(self) -> set[str]:
        """All secrets of the settings; `remember` redacts them in logs and reasons."""
        own = (one for _, one in self if isinstance(one, SecretStr))
        return {text for one in own for text in _passwords(one.get_secret_value())}

    @property
    def names(self) -> set[str]:
        """Hosts, bucket and folders of the settings; `remember_names` hides them from callers."""
        folders = (one for one in (self.node_dir, self.runtime_dir) if one is not None)
        names = {str(one.absolute()) for one in folders}
        for uri in (self.tracking_uri, self.ledger_url):
            names |= names_in(uri)
        if self.tracking_uri.startswith("s3:"):
            names.add(urlsplit(self.tracking_uri).path.strip("/"))
        return names - {""}

    @property
    def gateway_socket(self) -> Path:
        """The gateway's socket for the control plane."""
        return (self.runtime_dir or self.node_dir) / "gateway.sock"

    @property
    def operations_socket(self) -> Path:
        """The control plane's socket for its operators."""
        return (self.runtime_dir or self.node_dir) / "operations.sock"


def _passwords(secret: str) -> set[str]:
    """Return the secrets of a setting: the password of a URL, else the whole text."""
    return passwords_in(secret) if "://" in secret else {secret}
