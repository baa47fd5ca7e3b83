"""What an own environment is made of: only what is understood reaches the installer."""

import tomllib
from pathlib import Path

import pytest

from registry_sync.artifacts.environments.recipe import WORKER_NEEDS, Recipe, read_recipe
from registry_sync.artifacts.requirements_file import parse
from registry_sync.errors import EnvironmentFailedError

WHEEL = "https://example.org/thing-1.0-py3-none-any.whl"
SHA = "sha256:" + "a" * 64


def read(text: str, python: str | None = "3.11.4", **files: str) -> Recipe:
    return read_recipe(python, parse(text, files.get), here="3.12")


def test_equal_requirements_have_one_digest_however_they_are_written() -> None:
    one = read("scikit_learn == 1.6.1\nnumpy<3 , >=2  # why\n")
    other = read("# made by hand\n\nnumpy>=2,<3\nScikit-Learn==1.6.1\nnumpy>=2,<3\n", "3.11.9")
    assert one.requirements == ("numpy<3,>=2", "orjson>=3.10", "scikit-learn==1.6.1")
    assert one == other
    assert one.digest == other.digest


@pytest.mark.parametrize(
    ("pin", "needs"),
    [
        ("orjson==3.9.1", []),
        ("ORJSON", []),
        ('orjson==3.9.1; python_version < "3"', ["orjson>=3.10"]),
        ("orjson-extra==1", ["orjson>=3.10"]),
    ],
)
def test_what_the_worker_needs_is_left_to_the_model_that_requires_it(
    pin: str, needs: list[str]
) -> None:
    found = read(pin).requirements
    assert (len(found), [one for one in found if one in WORKER_NEEDS]) == (1 + len(needs), needs)


@pytest.mark.parametrize(
    ("text", "python"),
    [("a==2", "3.11"), ("a==1", "3.12"), ("a==1\nb==1", "3.11"), ("-i https://x\na==1", "3.11")],
)
def test_other_requirements_have_another_digest(text: str, python: str) -> None:
    assert read(text, python).digest != read("a==1", "3.11").digest


def test_constraints_hashes_wheels_and_indexes_are_followed() -> None:
    found = read(
        f"--extra-index-url https://download.example.org/cpu\n-c bounds.txt\n"
        f"a[x]==1 \\\n    --hash={SHA}\nthing @ {WHEEL}\nb==2; python_version < '3.12'\n",
        **{"bounds.txt": "numpy<3\n"},
    )
    assert found.indexes == ("--extra-index-url https://download.example.org/cpu",)
    assert found.constraints == ("numpy<3",)
    assert found.requirements == (
        f"a[x]==1 --hash={SHA}",
        'b==2; python_version < "3.12"',
        "orjson>=3.10",
        f"thing @ {WHEEL}",
    )


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "-r /etc/passwd",
        "-c ../../secret.txt",
        "-c not-there.txt",
        "--find-links /tmp",
        "--index-url http://example.org/simple",
        "--index-url https://x --trusted-host y",
        "./wheels/thing.whl",
        "thing @ file:///tmp/thing.whl",
        "thing @ git+https://example.org/x",
        "git+https://example.org/x",
        "a==1 --config-settings=x=y",
        "--no-binary :all:",
    ],
)
def test_what_is_not_understood_is_refused_and_named(line: str) -> None:
    with pytest.raises(EnvironmentFailedError, match="no environment is built from") as caught:
        read(f"a==1\n{line}\n")
    assert line[:20] in caught.value.reason
    assert not caught.value.transient


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/${AWS_SECRET_ACCESS_KEY}/simple",
        "--extra-index-url https://${USER}@example.org/simple",
        "-i $INDEX",
        "-c ${BOUNDS}",
        "thing @ https://example.org/${AWS_SECRET_ACCESS_KEY}/thing-1.0-py3-none-any.whl",
        "a===${VERSION}",
        "b==1; python_version < '${VERSION}'",
        "b==1 --hash=sha256:${HASH}",
        "b==\\\n${VERSION}",
        "-c bounds.txt",
    ],
)
def test_no_variable_is_expanded(line: str) -> None:
    with pytest.raises(EnvironmentFailedError, match=r"unsupported: .* no \$") as caught:
        read(f"a==1  # ${{FINE}}\n{line}\n", **{"bounds.txt": "a<${VERSION}\n"})
    assert caught.value.failure == "unsupported"
    assert not caught.value.transient


def test_a_comment_may_say_anything() -> None:
    assert "a==1" in read("# $HOME\na==1 # ${HOME}\n").requirements


def test_passwords_reach_only_the_installer() -> None:
    text = "-i https://{}pypi.example.org/simple\nthing @ https://{}example.org/thing.whl\n"
    found, plain = (read(text.format(user, user)) for user in ("me:hunter2@", ""))
    assert found.indexes == ("-i https://me:hunter2@pypi.example.org/simple",)
    assert "hunter2" not in str(found.shown())
    assert found.shown() == plain.shown()
    assert found.digest == plain.digest


@pytest.mark.parametrize(
    "line",
    [
        "--index-url http://me:hunter2@example.org/simple",
        "thing @ git+https://me:hunter2@example.org/x@main",
        "-i https://me:hunt$er2@example.org/simple",
        "-i https://me:hunter2@example.org/simple\\",
    ],
)
def test_a_refused_line_is_named_without_its_password(line: str) -> None:
    with pytest.raises(EnvironmentFailedError, match=r"://example\.org/") as caught:
        read(line)
    assert "hunt" not in caught.value.reason


@pytest.mark.parametrize("python", ["3.9.18", "3.6", "2.7.18"])
def test_a_python_older_than_the_worker_runs_on_is_unsupported(python: str) -> None:
    with pytest.raises(EnvironmentFailedError, match="unsupported: it was logged with") as caught:
        read("a==1", python)
    assert caught.value.failure == "unsupported"
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("python", "minor"), [("3.10.13", "3.10"), ("3.13", "3.13"), (None, "3.12"), ("new", "3.12")]
)
def test_the_python_is_that_of_the_log_or_ours(python: str | None, minor: str) -> None:
    assert read("a==1", python).python == minor


def test_the_number_of_lines_is_bounded_over_all_files() -> None:
    bounds = {f"{n}.txt": f"a<{n}\n" * 400 for n in range(6)}
    with pytest.raises(EnvironmentFailedError, match="more than 2000 lines"):
        read("".join(f"-c {name}\n" for name in bounds), **bounds)
    assert read("-c 1.txt\n" * 1500, **bounds).constraints == ("a<1",)


def test_the_workers_needs_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[5] / "pyproject.toml").read_text())["project"]
    assert set(WORKER_NEEDS) <= set(project["dependencies"])
