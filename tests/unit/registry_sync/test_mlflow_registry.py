"""How MLflow's two listings become one; the real server is in the integration tests."""

import os
from types import SimpleNamespace

import pytest

from registry_sync.aspired import DIGEST_TAG
from registry_sync.sources.mlflow_registry import _aspired, bound_mlflow

DIGEST = "sha256:" + "a" * 64


def model(name, aliases=(), **tags):
    return SimpleNamespace(name=name, aliases=dict(aliases), tags=tags)


def version(name, number, *, status="READY", tags=()):
    return SimpleNamespace(
        name=name,
        version=str(number),
        status=status,
        tags=dict(tags),
        source=f"models:/m-{number}",
        creation_timestamp=1_700_000_000_000,
    )


def listed(models, versions):
    return _aspired(models, versions, 5.0)


def test_latest_is_the_highest_ready_version():
    versions = [version("m", 2), version("m", 10), version("m", 11, status="FAILED_REGISTRATION")]
    found = listed([model("m", {"champion": "2"})], versions).models["m"]
    assert found.aliases == {"champion": 2, "latest": 10}
    assert sorted(found.versions) == [2, 10]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("alias", "target", "said"),
    [
        ("1", "1", "digits"),
        ("a b", "1", "letters"),
        ("champion", "9", "not listed"),
        ("champion", "3", "PENDING_REGISTRATION"),
        ("champion", "x", "whole number"),
        ("latest", "1", "highest"),
    ],
)
def test_an_alias_that_cannot_be_followed_is_a_problem_of_its_model_only(alias, target, said):
    versions = [version("m", 1), version("m", 3, status="PENDING_REGISTRATION"), version("n", 1)]
    aspired = listed([model("m", {alias: target, "fine": "1"}), model("n")], versions)
    assert aspired.models["m"].aliases == {"fine": 1, "latest": 1}
    (problem,) = aspired.models["m"].problems
    assert alias in problem
    assert said in problem
    assert aspired.models["n"].problems == ()


def test_a_stamp_is_read_and_an_unreadable_one_is_a_problem():
    versions = [
        version("m", 1, tags={DIGEST_TAG: DIGEST}),
        version("m", 2, tags={DIGEST_TAG: "md5:123"}),
        version("m", 3),
    ]
    found = listed([model("m")], versions).models["m"].versions
    assert [found[n].expected_digest for n in (1, 2, 3)] == [DIGEST, None, None]
    assert [found[n].stamped for n in (1, 2, 3)] == [True, False, False]
    assert [len(found[n].problems) for n in (1, 2, 3)] == [0, 1, 0]


def test_prompts_unusable_names_and_unlisted_models_are_left_out():
    models = [model("p", **{"mlflow.prompt.is_prompt": "true"}), model("a/b"), model("m")]
    aspired = listed(models, [version("m", 1), version("new", 1)])
    assert list(aspired.models) == ["m"]
    assert len(aspired.problems) == 1
    assert aspired.listed_at == 5.0
    assert [str(v.version) for v in aspired.versions()] == ["1"]


def test_a_model_without_ready_versions_has_no_latest():
    found = listed([model("m")], []).models["m"]
    assert (found.aliases, found.versions) == ({}, {})


def test_the_users_own_mlflow_settings_stand():
    environ = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "77"}
    bound_mlflow(environ)
    assert environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert environ is not os.environ
