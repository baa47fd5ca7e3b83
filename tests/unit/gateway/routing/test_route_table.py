"""Whom a request goes to: tables of snapshots, selectors and answers."""

import pytest

from gateway import errors
from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    Policy,
    VersionState,
)
from gateway.contract.node_state import ActiveAlias, RefusedDigest
from gateway.contract.references import AliasRef, ArtifactRef, parse_selector
from gateway.routing.lazy_versions import ListedVersions
from gateway.routing.route_table import RouteTable

DIGEST = {n: f"sha256:{n:064x}" for n in range(1, 9)}
STATE = VersionState


def version(number, state=STATE.AVAILABLE, *, here=True, accepted=True, reason=None):
    return CatalogueVersion(
        version=number,
        state=state,
        digest=DIGEST[number] if here else None,
        accepted_digest=DIGEST[number] if accepted else None,
        reason=reason,
    )


def ref(number):
    return ArtifactRef("churn", number, DIGEST[number])


def active(alias, number, model="churn"):
    return ActiveAlias(model=model, alias=alias, version=number, digest=DIGEST[number], since=1.0)


def table(*versions, aliases=None, actives=(), name="churn", **more):
    model = CatalogueModel(name=name, versions=list(versions), aliases=aliases or {}, **more)
    catalogue = Catalogue(writer="w", epoch=1, models=[model])
    result = RouteTable(default_alias="champion", catalogue=catalogue)
    for entry in actives:
        result = result.with_active(entry)
    return result


def resolve(snapshot, selector=None, model="churn"):
    return snapshot.resolve(model, parse_selector(selector) if selector else None)


@pytest.mark.parametrize(
    ("selector", "actives", "default", "expected"),
    [
        pytest.param("2", {}, None, 2, id="a number means that version"),
        pytest.param("champion", {"champion": 1}, None, 1, id="an alias: its active version"),
        pytest.param("@champion", {"champion": 1}, None, 1, id="an alias with its sign"),
        pytest.param(None, {"champion": 1, "latest": 2}, None, 1, id="nothing: the default alias"),
        pytest.param(None, {"latest": 2}, None, 2, id="no default alias: latest"),
        pytest.param(None, {"champion": 1, "prod": 2}, "prod", 2, id="a model's own default alias"),
    ],
)
def test_a_selector_means_a_version_and_its_bytes(selector, actives, default, expected):
    entries = [active(alias, number) for alias, number in actives.items()]
    aspired = {"champion": 2} if selector else {}
    snapshot = table(
        version(1), version(2), aliases=aspired, actives=entries, default_alias=default
    )
    route = resolve(snapshot, selector)
    assert (route.version, route.digest) == (expected, DIGEST[expected])


def test_a_default_alias_that_is_not_active_yet_does_not_fall_back_to_latest():
    snapshot = table(version(1), version(2), aliases={"champion": 1}, actives=[active("latest", 2)])
    with pytest.raises(errors.ModelLoadingError):
        resolve(snapshot)


def test_version_on_disk_is_never_a_default():
    with pytest.raises(errors.NoDefaultVersionError):
        resolve(table(version(1), version(2)))


@pytest.mark.parametrize(
    ("selector", "model", "error"),
    [
        ("1", "other", errors.ModelNotFoundError),
        ("9", "churn", errors.VersionNotFoundError),
        ("shadow", "churn", errors.AliasNotFoundError),
        ("latest", "churn", errors.AliasNotFoundError),
    ],
)
def test_unknown_names_are_not_found(selector, model, error):
    with pytest.raises(error):
        resolve(table(version(1)), selector, model)


def test_before_any_catalogue_nothing_is_declared_unknown():
    with pytest.raises(errors.RegistryUnavailableError, match="is the control plane running"):
        resolve(RouteTable(default_alias="champion"), "1")


def unlisted(*models, error=None, epoch=2):
    """What a control plane says before it has listed the registry."""
    return Catalogue(
        writer="new", epoch=epoch, models=list(models), source_error=error, complete=False
    )


def remembered(*versions, name="churn"):
    return CatalogueModel(name=name, versions=list(versions), remembered=True)


@pytest.mark.parametrize(
    ("selector", "model"),
    [("1", "other"), (None, "other"), ("9", "churn"), ("shadow", "churn"), (None, "churn")],
)
@pytest.mark.parametrize(
    ("error", "says"), [("it said 403", "it said 403"), (None, "for the first time")]
)
def test_before_the_first_listing_nothing_is_declared_unknown(selector, model, error, says):
    news = unlisted(remembered(version(1)), error=error)
    snapshot = RouteTable(default_alias="champion").with_catalogue(news)
    assert resolve(snapshot, "1").digest == DIGEST[1], "what is here serves"
    with pytest.raises(errors.RegistryUnavailableError, match=says):
        resolve(snapshot, selector, model)


def test_unlisted_active_model_has_no_other_known_versions():
    entry = active("champion", 1)
    snapshot = RouteTable(default_alias="champion").with_active(entry).with_catalogue(unlisted())
    assert resolve(snapshot).version == resolve(snapshot, "1").version == 1
    with pytest.raises(errors.RegistryUnavailableError):
        resolve(snapshot, "2")
    assert snapshot.why_gone(ref(1)) is None


def test_a_catalogue_that_is_not_complete_takes_nothing_away():
    before = table(version(1), version(2), aliases={"champion": 2}).with_listing(5.0, None)
    news = unlisted(remembered(version(1)), remembered(version(1), name="new"), error="it hangs")
    after = before.with_catalogue(news)
    assert after.names() == ["churn", "new"]
    assert after.model("churn") is before.model("churn")
    catalogue = after.catalogue
    assert catalogue is not None
    assert (catalogue.writer, catalogue.epoch, catalogue.complete) == ("new", 2, True)
    assert (catalogue.listed_at, catalogue.source_error) == (5.0, "it hangs")
    with pytest.raises(errors.ModelNotFoundError):
        resolve(after, "1", "other")
    # What is remembered is told anew; what was looked at since counts, whoever tells of it.
    again = after.with_catalogue(unlisted(remembered(version(3), name="new"), epoch=3))
    assert resolve(again, "3", "new").version == 3
    looked_at = CatalogueModel(name="churn", versions=[version(4)])
    again = again.with_catalogue(unlisted(looked_at, epoch=4))
    assert [one.version for one in again.model("churn").versions] == [4]
    assert again.with_catalogue(Catalogue(writer="new", epoch=5, models=[])).names() == []


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (version(1, STATE.QUARANTINED, reason="digest differs"), errors.VersionQuarantinedError),
        (version(1, STATE.FAILED, here=False, reason="timed out"), errors.ModelLoadFailedError),
        (version(1, STATE.DELETED, here=False), errors.VersionDeletedError),
    ],
)
def test_a_version_that_cannot_be_served_says_why(entry, error):
    with pytest.raises(error) as raised:
        resolve(table(entry), "1")
    if entry.reason:
        assert entry.reason in raised.value.message


def test_a_deleted_version_answers_while_its_bytes_are_kept():
    assert resolve(table(version(1, STATE.DELETED)), "1").digest == DIGEST[1]


def test_a_registered_version_routes_without_bytes():
    assert resolve(table(version(1, STATE.REGISTERED, here=False)), "1").digest is None


def test_bytes_that_serve_an_alias_go_on_when_their_version_is_quarantined():
    entry = version(1, STATE.QUARANTINED, here=False, reason="bytes changed")
    snapshot = table(entry, actives=[active("champion", 1)])
    assert resolve(snapshot, "champion").digest == DIGEST[1]
    assert resolve(snapshot, "1").digest == DIGEST[1]


@pytest.mark.parametrize("state", [STATE.REGISTERED, STATE.FETCHING, STATE.QUARANTINED])
def test_bytes_of_an_earlier_creation_serve_their_alias_and_no_caller_by_number(state):
    anew = version(1, state, here=False, accepted=False, reason="wrong bytes")
    snapshot = table(anew, actives=[active("champion", 1)])
    assert resolve(snapshot, "champion").digest == DIGEST[1]
    if state is STATE.QUARANTINED:
        with pytest.raises(errors.VersionQuarantinedError, match="wrong bytes"):
            resolve(snapshot, "1")
    else:
        assert resolve(snapshot, "1").digest is None, "its callers wait for its own bytes"


@pytest.mark.parametrize("listed", [False, True])
def test_catalogue_without_accepted_digests_changes_nothing(listed):
    old = CatalogueVersion(version=1, state=STATE.QUARANTINED, reason="bytes changed")
    versions = ListedVersions([old]) if listed else [old]
    model = CatalogueModel(name="churn", versions=[]).model_copy(update={"versions": versions})
    catalogue = Catalogue(writer="w", epoch=1, models=[]).model_copy(update={"models": [model]})
    snapshot = RouteTable("champion", catalogue=catalogue).with_active(active("champion", 1))
    assert resolve(snapshot, "1").digest == DIGEST[1]


def test_callers_by_number_get_the_accepted_bytes_whichever_alias_has_them():
    anew = version(1).model_copy(update={"digest": DIGEST[2], "accepted_digest": DIGEST[2]})
    old, new = active("prod", 1), active("champion", 1).model_copy(update={"digest": DIGEST[2]})
    for actives in ([old], [old, new], [new, old]):
        snapshot = table(anew, actives=actives)
        assert resolve(snapshot, "1").digest == DIGEST[2]
        assert resolve(snapshot, "prod").digest == DIGEST[1]


def test_an_alias_serves_on_when_the_catalogue_forgets_its_model():
    snapshot = table(version(1), actives=[active("champion", 1)])
    emptied = snapshot.with_catalogue(Catalogue(writer="w", epoch=2, models=[]))
    assert resolve(emptied, "champion").version == 1
    assert resolve(emptied).version == 1
    assert emptied.names() == ["churn"]


def test_a_move_makes_a_new_table_and_leaves_the_old_one_alone():
    old = table(version(1), version(2), actives=[active("champion", 1)])
    new = old.with_active(active("champion", 2))
    assert (resolve(old, "champion").version, resolve(new, "champion").version) == (1, 2)
    assert new.generation == old.generation + 1


def test_a_catalogue_does_not_change_the_generation():
    old = table(version(1), actives=[active("champion", 1)])
    assert old.with_catalogue(Catalogue(writer="w", epoch=2, models=[])).generation == 1


def test_an_alias_taken_away_is_gone():
    snapshot = table(version(1), actives=[active("champion", 1)]).without_alias(
        AliasRef("churn", "champion")
    )
    with pytest.raises(errors.AliasNotFoundError):
        resolve(snapshot, "champion")


def with_policy(number, **own):
    return version(number).model_copy(update={"policy": Policy(**own)})


MODELS = Policy(timeout_s=2.5, max_batch_rows=64, problems=["hm"])


def test_policy_travels_with_the_route():
    assert resolve(table(version(1), policy=MODELS), "1").timeout_s == 2.5
    assert resolve(table(version(1)), "1").timeout_s is None


def test_policy_of_a_version_overrides_its_models_per_field():
    snapshot = table(with_policy(1, timeout_s=9.0), with_policy(2, max_batch_rows=1), policy=MODELS)
    assert [resolve(snapshot, n).timeout_s for n in ("1", "2")] == [9.0, 2.5]
    assert [snapshot.policy_of(ref(n)).max_batch_rows for n in (1, 2)] == [64, 1]


def test_an_alias_has_the_policy_of_the_version_that_it_means_now():
    snapshot = table(
        with_policy(1, timeout_s=9.0), version(2), actives=[active("champion", 1)], policy=MODELS
    )
    assert resolve(snapshot).timeout_s == resolve(snapshot, "champion").timeout_s == 9.0
    assert resolve(snapshot.with_active(active("champion", 2))).timeout_s == 2.5


def test_a_catalogue_with_another_policy_counts_for_the_next_request():
    snapshot = table(version(1), actives=[active("champion", 1)], policy=MODELS)
    assert resolve(snapshot).timeout_s == 2.5
    model = CatalogueModel(name="churn", versions=[with_policy(1, timeout_s=7.0)])
    snapshot = snapshot.with_catalogue(Catalogue(writer="w", epoch=2, models=[model]))
    assert resolve(snapshot).timeout_s == 7.0


def test_a_policy_is_looked_up_once_for_each_selector_of_a_table():
    snapshot = table(with_policy(1, timeout_s=9.0), policy=MODELS)
    route = resolve(snapshot, "1")
    assert route.timeout_s == 9.0
    assert resolve(snapshot, "1") is route


def test_unlisted_version_has_no_policy():
    gone = RouteTable("champion").with_active(active("champion", 1))
    assert gone.policy_of(ref(1)) == Policy()
    assert resolve(gone).timeout_s is None
    assert resolve(table(version(1, STATE.DELETED), policy=MODELS), "1").timeout_s == 2.5


def test_a_predecessor_keeps_the_policy_and_environment_that_it_had_last():
    own = Environment(kind="own", python="/environments/a/python")
    before = with_policy(1, timeout_s=9.0).model_copy(update={"environment": own})
    snapshot = table(before, actives=[active("champion", 1)], policy=MODELS)
    gone = version(1, STATE.DELETED)
    anew = gone.model_copy(
        update={"state": STATE.AVAILABLE, "digest": DIGEST[2], "accepted_digest": DIGEST[2]}
    )
    for epoch, versions in enumerate([[gone], [], [anew], [anew]], start=2):
        model = CatalogueModel(name="churn", versions=ListedVersions(versions))
        snapshot = snapshot.with_catalogue(Catalogue(writer="w", epoch=epoch, models=[model]))
        assert resolve(snapshot, "champion").timeout_s == 9.0
        assert snapshot.policy_of(ref(1)) == Policy(timeout_s=9.0, max_batch_rows=64)
        assert snapshot.environment_of(ref(1)) == own
    assert resolve(snapshot, "1").timeout_s is None
    assert snapshot.environment_of(ArtifactRef("churn", 1, DIGEST[2])) == Environment()
    back = with_policy(1, timeout_s=7.0)
    model = CatalogueModel(name="churn", versions=[back])
    snapshot = snapshot.with_catalogue(Catalogue(writer="w", epoch=9, models=[model]))
    assert resolve(snapshot, "champion").timeout_s == 7.0, "it is listed again, with other tags"


def test_bytes_are_out_of_reach_once_no_alias_and_no_listing_has_them():
    anew = version(1).model_copy(update={"digest": DIGEST[2], "accepted_digest": DIGEST[2]})
    assert table(anew).is_out_of_reach(ref(1))
    assert not table(anew, actives=[active("champion", 1)]).is_out_of_reach(ref(1))
    assert not table(version(1)).is_out_of_reach(ref(1))


@pytest.mark.parametrize(("python", "is_routed"), [("/e/python", True), (None, False)])
def test_version_without_its_copy_is_routed_if_its_environment_is_built(python, is_routed):
    own = {"expected_digest": DIGEST[1], "environment": Environment(kind="own", python=python)}
    route = table(version(1, here=False).model_copy(update=own)).without_copy("churn", 1)
    assert (route is not None) is is_routed


def test_a_hold_is_found_by_model_alias_and_digest():
    hold = RefusedDigest(model="churn", alias="champion", digest=DIGEST[2], reason="went back")
    snapshot = RouteTable(default_alias="champion", refused_digests=(hold,))
    assert snapshot.refused_digest(AliasRef("churn", "champion"), DIGEST[2]) is hold
    assert snapshot.refused_digest(AliasRef("churn", "champion"), DIGEST[1]) is None
