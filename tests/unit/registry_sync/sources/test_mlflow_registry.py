"""How MLflow's two listings become one; the real server is in the integration tests."""

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from registry_sync.domain.tags import DIGEST_TAG
from registry_sync.sources.mlflow_registry import MlflowRegistry, _aspired, bound_mlflow

DIGEST = "sha256:" + "a" * 64


NOW_MS = 2_000_000_000_000
"""Later than any version was made that a test says nothing else of."""


def model(name, aliases=(), *, updated=NOW_MS, **tags):
    return SimpleNamespace(
        name=name,
        aliases=dict(aliases),
        tags=tags,
        last_updated_timestamp=updated,
        latest_versions=(),
    )


def version(name, number, *, status="READY", tags=(), created_s=1.7e9):
    return SimpleNamespace(
        name=name,
        version=str(number),
        status=status,
        tags=dict(tags),
        source=f"models:/m-{number}",
        run_id=None,
        creation_timestamp=int(created_s * 1000),
    )


def pending(name, number):
    return version(name, number, status="PENDING_REGISTRATION", created_s=time.time())


def listed(models, versions):
    return _aspired(models, versions, 5.0, {}, "without_aliases")


class Server:
    """An ``MlflowClient`` that counts, two models a page."""

    def __init__(self, models, versions):
        self.models, self.versions, self.calls = models, versions, []

    def search_registered_models(self, max_results, page_token, filter_string=""):
        self.calls.append(("models", filter_string))
        return self._page([one for one in self.models if _meant(one, filter_string)], page_token)

    def search_model_versions(self, max_results, page_token, order_by, filter_string=""):
        self.calls.append(("versions", filter_string))
        return self._page([one for one in self.versions if _meant(one, filter_string)], page_token)

    def _page(self, found, token):
        start = int(token or 0)
        page = PagedList(found[start : start + 2])
        page.token = str(start + 2) if start + 2 < len(found) else None
        return page


class PagedList(list[Any]):
    token: str | None = None


def _meant(entity, filter_string):
    quotes = [f"name = '{entity.name}'", f'name = "{entity.name}"']
    return not filter_string or filter_string in quotes


def asked(models, versions):
    """Have a server's registry listed; the server, the registry, and what it listed."""
    server = Server(list(models), versions)
    registry = MlflowRegistry(lambda: server)
    return server, registry, registry.aspired()


def test_versions_are_asked_for_only_where_a_model_shows_a_change():
    names = [f"m{number}" for number in range(3)]
    server = Server([model(name) for name in names], [version(name, 1) for name in names])
    registry = MlflowRegistry(lambda: server)
    first = registry.aspired()
    assert [call for call, _ in server.calls] == ["models"] * 2 + ["versions"] * 2
    server.calls.clear()
    second = registry.aspired(first)
    assert second.models == first.models
    assert [call for call, _ in server.calls] == ["models"] * 2
    server.models[1] = model("m1", {"champion": "1"})
    server.calls.clear()
    assert registry.aspired(second).models["m1"].aliases == {"champion": 1}
    assert server.calls[2:] == [("versions", "name = 'm1'")]


def test_many_changes_or_unfilterable_names_list_all_versions_at_once():
    server, registry, before = asked(
        [model("a'b\"c"), model("m")], [version("a'b\"c", 1), version("m", 1)]
    )
    server.models[0] = model("a'b\"c", updated=NOW_MS + 1)
    server.calls.clear()
    assert registry.aspired(before).models["a'b\"c"].aliases == {"latest": 1}
    assert server.calls[-1] == ("versions", "")
    server.models = [model(f"m{number}") for number in range(9)]
    server.calls.clear()
    registry.aspired(before)
    assert [one for one in server.calls if one[0] == "versions"] == [("versions", "")]


def test_a_model_with_a_version_that_is_not_ready_is_asked_for_every_time():
    server, registry, before = asked([model("m")], [pending("m", 1)])
    server.versions = [version("m", 1)]
    assert sorted(registry.aspired(before).models["m"].versions) == [1]


def test_versions_that_stay_unready_cost_no_calls():
    failed = [version(f"m{n}", 1, status="FAILED_REGISTRATION") for n in range(9)]
    stuck = [version(f"s{n}", 1, status="PENDING_REGISTRATION") for n in range(9)]
    models = [model(one.name, {"champion": "1"}) for one in (*failed, *stuck)]
    server, registry, before = asked(models, [*failed, *stuck])
    server.calls.clear()
    assert registry.aspired(before).models == before.models
    assert {kind for kind, _ in server.calls} == {"models"}
    server.versions = [version(one.name, 1) for one in stuck]
    assert len(registry.aspired().models["s3"].versions) == 1, "a thorough poll finds them"


def test_an_alias_ahead_of_the_listing_of_versions_is_asked_for_again():
    server, registry, before = asked([model("m", {"champion": "2"})], [version("m", 1)])
    assert before.models["m"].unfollowed == {"champion"}
    server.versions = [version("m", 1), version("m", 2)]
    assert registry.aspired(before).models["m"].aliases["champion"] == 2


def test_one_model_can_be_asked_for():
    server = Server([model("it's"), model("m")], [version("it's", 4), version("m", 1)])
    registry = MlflowRegistry(lambda: server)
    found = registry.model("it's")
    assert found is not None
    assert sorted(found.versions) == [4]
    assert registry.model("nobody") is None


def test_model_made_anew_between_the_listings_keeps_no_old_alias(monkeypatch):
    server = Server([model("m", {"champion": "1"}), model("n")], [version("m", 1)])
    search = server.search_model_versions

    def made_anew_first(**options):
        server.models[0] = model("m", updated=NOW_MS + 9)
        server.versions = [version("m", 1, created_s=NOW_MS / 1000 + 0.009)]
        return search(**options)

    monkeypatch.setattr(server, "search_model_versions", made_anew_first)
    registry = MlflowRegistry(lambda: server)
    assert registry.aspired().models["m"].aliases == {"latest": 1}
    assert server.calls[-1] == ("models", "name = 'm'")
    server.models[0] = model("m", {"champion": "1"})
    found = registry.model("m")
    assert found is not None
    assert found.aliases == {"latest": 1}


def test_a_model_that_is_gone_after_its_versions_were_listed_is_not_listed(monkeypatch):
    server = Server([model("m", updated=1), model("n")], [version("m", 1), version("n", 1)])
    search = server.search_model_versions

    def gone_first(**options):
        server.models = [model("n")]
        return search(**options)

    monkeypatch.setattr(server, "search_model_versions", gone_first)
    assert set(MlflowRegistry(lambda: server).aspired().models) == {"n"}


def test_latest_is_the_highest_ready_version():
    versions = [version("m", 2), version("m", 10), version("m", 11, status="FAILED_REGISTRATION")]
    found = listed([model("m")], versions).models["m"]
    assert found.aliases == {"latest": 10}
    assert sorted(found.versions) == [2, 10]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("alias", "target", "said", "unfollowed"),
    [
        ("1", "1", "digits", set()),
        ("a b", "1", "letters", set()),
        ("champion", "9", "not listed", {"champion"}),
        ("champion", "3", "PENDING_REGISTRATION", {"champion"}),
        ("champion", "x", "cannot be a version", {"champion"}),
        ("champion", True, "cannot be a version", {"champion"}),
        ("champion", None, "cannot be a version", {"champion"}),
        ("latest", "1", "highest", set()),
    ],
)
def test_an_alias_that_cannot_be_followed_is_a_problem_of_its_model_only(
    alias, target, said, unfollowed
):
    versions = [version("m", 1), version("m", 3, status="PENDING_REGISTRATION"), version("n", 1)]
    aspired = listed([model("m", {alias: target, "fine": "1"}), model("n")], versions)
    assert aspired.models["m"].aliases == {"fine": 1}
    assert aspired.models["m"].unfollowed == unfollowed
    (problem,) = aspired.models["m"].problems
    assert alias in problem
    assert said in problem
    assert aspired.models["n"].problems == ()


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 0, -1, "x"])
def test_an_impossible_version_leaves_out_itself_only(number):
    models = [model("m", {"champion": "1", "canary": str(number)}), model("n", {"champion": "1"})]
    rows = [version("m", 1), version("m", number), version("n", 1)]
    found = listed(models, rows).models
    assert found["m"].aliases == {"champion": 1}
    assert found["m"].unfollowed == {"canary"}, "it is there, and what it means here goes on"
    assert sorted(found["m"].versions) == [1]
    assert found["n"].aliases == {"champion": 1}
    left_out, pointed = found["m"].problems
    assert f"the version '{number}' is ignored: a version must be a whole number" in left_out
    assert f"'canary' points at '{number}', which cannot be a version" in pointed


def test_a_stamp_is_read_and_an_unreadable_one_is_a_problem():
    versions = [
        version("m", 1, tags={DIGEST_TAG: f" {DIGEST}\n"}),
        version("m", 2, tags={DIGEST_TAG: "md5:123"}),
        version("m", 3),
        version("m", 4, tags={DIGEST_TAG: ""}),
        version("m", 5, tags={"Gateway.Digest": DIGEST}),
        version("m", 6, tags={DIGEST_TAG: DIGEST, "gateway.DIGEST": "x"}),
        version("m", 7, tags={DIGEST_TAG: DIGEST.upper()}),
    ]
    found = listed([model("m")], versions).models["m"].versions
    read = (DIGEST, None, None, None, None, DIGEST, None)
    assert tuple(found[n].expected_digest for n in range(1, 8)) == read
    unreadable = {n for n in found if found[n].stamp_problem}
    assert unreadable == {2, 4, 5, 7} == {n for n in found if found[n].problems}
    assert not any(found[n].stamped for n in unreadable)
    for part in ("version 2", "'sha256:' and 64", "stamp --force models:/m/2"):
        assert part in (found[2].stamp_problem or "")
    assert "is written Gateway.Digest" in (found[5].stamp_problem or "")


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
