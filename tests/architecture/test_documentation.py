"""The README's tables of settings, tags, metrics and codes are what the code says.

So are the limits that decisions name.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from gateway.observability.metrics import Telemetry
from gateway.serving import kept_proofs
from gateway.settings import GatewaySettings
from gateway.system.http1 import refusals as http_refusals
from gateway.system.logs import redaction
from gateway.system.settings_help import settings_help
from registry_sync.artifacts.environments.uv_job import INHERITED, INHERITED_PREFIXES
from registry_sync.domain.tags import DIGEST_TAG, POLICY_TAGS
from registry_sync.ledger import backlog
from registry_sync.operations import errors, listeners
from registry_sync.settings import SyncSettings
from registry_sync.system import metrics

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DECISIONS = ROOT / "docs" / "decisions"
CODE_ROW = re.compile(r"^\| [\dx, ]+ \| (?P<codes>`[^|]*) \|", re.MULTILINE)
ROW = re.compile(r"^\| `(?P<name>[A-Z][A-Z0-9_]+)`[^|]*\| (?P<default>[^|]*?) *\|", re.MULTILINE)
METRIC = re.compile(
    r"^\| `(?P<name>(?:gateway|registry_sync)_\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*?) *\|",
    re.MULTILINE,
)
TAG = re.compile(r"^\| `(?P<name>gateway\.\w+)` \| (?P<on>version[^|]*?) \|", re.MULTILINE)
SETTINGS: list[type[BaseSettings]] = [GatewaySettings, SyncSettings]


def _documented() -> dict[str, str]:
    """Each setting of the README with the cell that gives its default."""
    return {row["name"]: row["default"] for row in ROW.finditer(README.read_text())}


def _names(settings: type[BaseSettings]) -> dict[str, Any]:
    prefix = settings.model_config["env_prefix"]
    return {prefix + name.upper(): field for name, field in settings.model_fields.items()}


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_is_documented_with_its_default(settings: type[BaseSettings]) -> None:
    documented = _documented()
    for name, field in _names(settings).items():
        assert name in documented, f"{name} is not in the README"
        if field.default is not PydanticUndefined:
            assert _says(documented[name], field.default), (name, documented[name], field.default)
        else:
            assert documented[name], f"{name}: the README does not say what the default is"


@pytest.mark.parametrize("settings", SETTINGS)
def test_no_documented_setting_is_unknown(settings: type[BaseSettings]) -> None:
    prefix = settings.model_config["env_prefix"]
    documented = {name for name in _documented() if name.startswith(prefix)}
    assert documented == set(_names(settings))


@pytest.mark.parametrize("settings", SETTINGS)
def test_help_tells_every_setting_and_what_it_means(settings: type[BaseSettings]) -> None:
    lines = settings_help(settings)
    for line, (name, field) in zip(lines, _names(settings).items(), strict=True):
        assert re.match(rf"{name} (or \w+ )?\([^)]+\): [A-Z'…]", line), line
        assert field.description
        assert line.endswith((".", "…")), line


@pytest.mark.parametrize(
    ("command", "settings"),
    [(["gateway"], GatewaySettings), (["registry_sync", "control-plane"], SyncSettings)],
    ids=["gateway", "registry_sync"],
)
def test_help_is_what_the_commands_print(command: list[str], settings: type[BaseSettings]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    printed = "".join(done.stdout.split())
    for line in settings_help(settings):
        assert "".join(line.split()) in printed, line


def test_help_spells_defaults_as_they_would_be_set() -> None:
    lines = {line.split(" ")[0]: line for line in settings_help(SyncSettings)}
    assert " (30): " in lines["REGISTRY_SYNC_POLL_INTERVAL_S"]
    assert " (21474836480): " in lines["REGISTRY_SYNC_MAX_ARTIFACT_BYTES"]
    assert " (false): " in lines["REGISTRY_SYNC_REQUIRE_DIGEST"]
    for name in ("DATABASE_URL", "OPERATIONS_TOKEN"):
        assert " (empty): " in lines[f"REGISTRY_SYNC_{name}"]
    uri = lines["REGISTRY_SYNC_TRACKING_URI"]
    assert " or MLFLOW_TRACKING_URI (http://127.0.0.1:5000): " in uri


def _says(cell: str, default: object) -> bool:
    """Whether the first code span of the cell is the default; an empty one may be put in words."""
    span = re.match(r"`([^`]*)`", cell)
    if default in ("", None):
        return bool(cell)
    if span is None:
        return False
    said = span[1]
    if isinstance(default, bool):
        return said == str(default).lower()
    if isinstance(default, (int, float)):
        return said.replace(".", "", 1).isdigit() and float(said) == float(default)
    return said == str(default)


def test_every_metric_is_documented_with_its_kind_and_labels() -> None:
    kinds: dict[type, str] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    expected = {}
    for metric in (*vars(Telemetry()).values(), *vars(metrics).values()):
        if type(metric) in kinds:
            name = metric._name + ("_total" if isinstance(metric, Counter) else "")
            expected[name] = (kinds[type(metric)], tuple(metric._labelnames))
    documented = {
        row["name"]: (row["kind"], tuple(re.findall(r"`(\w+)`", row["labels"])))
        for row in METRIC.finditer(README.read_text())
    }
    assert len(expected) > 10
    assert documented == expected


def test_every_tag_is_documented_with_what_it_may_be_on() -> None:
    documented = {row["name"]: row["on"] for row in TAG.finditer(README.read_text())}
    on_both = dict.fromkeys(POLICY_TAGS, "version, else model")
    assert documented == {DIGEST_TAG: "version", **on_both}


def test_every_variable_that_the_installer_is_given_is_documented() -> None:
    given = {name.upper() for name in INHERITED} | {f"{prefix}…" for prefix in INHERITED_PREFIXES}
    line = next(line for line in README.read_text().splitlines() if "uv is given" in line)
    assert {*re.findall(r"`([A-Z_]+…?)`", line.partition("uv is given")[2])} == given | {
        "UV_PUBLISH_…",
        "UV_COMPILE_BYTECODE",
    }


def _codes_under(heading: str) -> set[str]:
    """The codes in the tables of a section of the README."""
    section = re.split(
        r"^#{2,3} ", README.read_text().partition(f"\n{heading}\n")[2], flags=re.MULTILINE
    )
    rows = CODE_ROW.finditer(section[0])
    return {code for row in rows for code in re.findall(r"`(\w+)`", row["codes"])}


def _codes_of(*modules: ModuleType) -> set[str]:
    return {
        one.code
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Exception) and hasattr(one, "code")
    }


def test_every_code_of_http_is_documented_for_both_listeners() -> None:
    of_http = _codes_of(http_refusals)
    assert len(of_http) > 5
    assert of_http <= _codes_under("### Errors")
    of_operations = of_http | _codes_of(listeners, errors)
    assert {"not_authentic", "operators_refused", "not_held"} < of_operations
    assert of_operations <= _codes_under("## Operations listener")


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        ("without-the-ledger.md", f"the newest {backlog._MOST_ACTIVATIONS:,};"),
        ("kept-proofs.md", f"at most {kept_proofs.MOST_KEPT:,} proofs of at most"),
        ("what-is-shown.md", f"({redaction._MOST_LEARNED:,} names)"),
    ],
)
def test_a_decision_names_the_limit_of_the_code(decision: str, sentence: str) -> None:
    assert sentence in (DECISIONS / decision).read_text()
