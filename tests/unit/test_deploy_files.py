"""The files under ``deploy/`` are sound: linters' verdicts, and what an operator relies on."""

from __future__ import annotations

import re
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.pythons import ended

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = Path(sysconfig.get_path("scripts"))

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
LONG_RUNNING = {"gateway", "control-plane", "mlflow", "postgres", "s3"}


def _passes(tool: str, *arguments: str | Path) -> None:
    done = ended([SCRIPTS / tool, *arguments], cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def _stage(number: int) -> str:
    """The text of one stage of the Dockerfile, comments left out."""
    code = re.sub(r"(?m)^#.*\n", "", DOCKERFILE)
    return re.split(r"(?m)^(?=FROM )", code)[1:][number]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    _passes("hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile")


def test_the_compose_file_follows_the_compose_specification() -> None:
    _passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_yamllint_finds_nothing() -> None:
    files = [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    _passes("yamllint", "--strict", "--config-file", DEPLOY / ".yamllint.yaml", *files)


def test_the_image_has_a_pinned_base_and_is_built_in_two_stages() -> None:
    bases = re.findall(r"(?m)^FROM (\S+)", DOCKERFILE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)


def test_the_image_installs_the_versions_that_the_tests_ran_with() -> None:
    assert "--constraint constraints.txt" in _stage(0)


def test_the_image_runs_as_a_user_that_is_not_root() -> None:
    users = re.findall(r"(?m)^USER (\S+)", _stage(1))
    assert users
    assert all(int(part) > 0 for part in users[-1].split(":"))


def test_the_image_checks_its_health_without_curl() -> None:
    check = re.search(r"(?m)^HEALTHCHECK (?:[^\n]*\\\n)*[^\n]*", _stage(1))
    assert check
    assert "/health/live" in check[0]
    assert '["python", "-c"' in check[0]
    assert "curl" not in DOCKERFILE


def test_every_health_check_that_is_a_python_line_compiles() -> None:
    checks = [service.get("healthcheck", {}).get("test", []) for service in SERVICES.values()]
    lines = [check[3] for check in checks if check[1:3] == ["python", "-c"]]
    lines += re.findall(r'CMD \["python", "-c", "([^"]+)"\]', DOCKERFILE)
    lines += [SERVICES["bucket"]["command"][2]]
    assert len(lines) >= 4
    for line in lines:
        compile(line, "<health check>", "exec")


def test_the_compose_file_brings_every_part_of_a_node() -> None:
    assert SERVICES.keys() >= LONG_RUNNING
    assert "postgres" in SERVICES["postgres"]["image"]
    assert re.search("seaweedfs|minio", SERVICES["s3"]["image"])
    commands = {name: " ".join(SERVICES[name].get("command", [])) for name in LONG_RUNNING}
    assert commands["gateway"] == "python -m gateway"
    assert commands["control-plane"] == "python -m registry_sync"
    assert commands["mlflow"].startswith("python -m mlflow server")


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_every_service_that_stays_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_dependencies_wait_for_health_or_completion() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            ends = SERVICES[other].get("restart") == "no"
            expected = "service_completed_successfully" if ends else "service_healthy"
            assert how["condition"] == expected, (name, other)


def test_both_planes_share_the_node_directory() -> None:
    mounts = [set(SERVICES[name]["volumes"]) for name in ("gateway", "control-plane")]
    assert mounts[0] == mounts[1] == {"node:/var/lib/registry-gateway"}
    assert "NODE_DIR=/var/lib/registry-gateway" in DOCKERFILE


def test_ports_are_published_on_the_loopback_address_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_our_containers_give_up_what_they_do_not_need() -> None:
    for name in ("gateway", "control-plane", "mlflow", "bucket"):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_images_have_a_version() -> None:
    for service in SERVICES.values():
        assert re.search(r":[\w.-]*\d", service["image"])
        assert not service["image"].endswith(":latest")


def test_our_image_carries_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SERVICES["gateway"]["image"] == f"registry-gateway:{project['version']}"


def test_secrets_come_from_the_environment_and_each_is_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?\}", text))
    example = (DEPLOY / ".env.example").read_text()
    assert needed == set(re.findall(r"(?m)^(\w+)=", example))
    assert {"POSTGRES_PASSWORD", "S3_SECRET_ACCESS_KEY"} <= needed
    assert not re.search(r"(?im)^\s*\w*(password|secret)\w*: (?!\$\{)", text)


def test_the_build_context_holds_what_the_image_copies() -> None:
    kept = set(re.findall(r"(?m)^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text()))
    copied = {
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE)
        for source in line.split()[:-1]
    }
    assert copied == kept
