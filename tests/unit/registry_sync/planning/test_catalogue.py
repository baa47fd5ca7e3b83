"""A held alias says so, at what and until when; others say nothing."""

import pytest

from gateway.contract import AliasRef
from gateway.contract.catalogue import CatalogueModel, CatalogueVersion, Policy, VersionState
from registry_sync.domain import AcceptedDigest, Hold, LedgerView, Quarantine
from registry_sync.domain.aspired import AspiredModel, AspiredVersion
from registry_sync.planning.actions import Failure
from registry_sync.planning.catalogue import KnownState, describe_model, for_callers


def model(name):
    versions = {n: AspiredVersion(model=name, version=n, location="x") for n in (1, 2)}
    return AspiredModel(name=name, versions=versions, aliases={"champion": 2, "latest": 2})


def test_a_held_alias_says_what_holds_it_and_until_when():
    hold = Hold(
        model="churn",
        alias="champion",
        aspired_version=2,
        target_version=1,
        target_digest="sha256:" + "a" * 64,
        asked_by="operator",
        at=1.0,
    )
    ledger = LedgerView(holds={AliasRef("churn", "champion"): hold})
    churn, wine = (
        describe_model(name, model(name), ledger, KnownState(descriptions={}))
        for name in ("churn", "wine")
    )
    assert churn
    assert wine
    assert churn.notes == {
        "champion": "held at version 1 by operator until the registry points it at another "
        "version than 2"
    }
    assert wine.notes == {}


DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SECRET = "s3://inner-bucket/x: http://inner-host:9000/?X-Amz-Signature=c4nary"


def version_of(listed=None, *, here=False, quarantined=False, **known):
    """What is told of version 1, which was accepted here; ``here``: its bytes are, too."""
    accepted_here = AcceptedDigest("m", 1, DIGEST, None, stamped=False, listing=None)
    wrong = Quarantine("m", 1, DIGEST, None, OTHER, "wrong bytes", 1.0)
    ledger = LedgerView(
        accepted={("m", 1): accepted_here}, quarantines={("m", 1): wrong} if quarantined else {}
    )
    listed = listed or AspiredVersion("m", 1, "x")
    descriptions = {DIGEST: {"size_bytes": 7}} if here else {}
    described = describe_model(
        "m", AspiredModel("m", {1: listed}), ledger, KnownState(descriptions, **known)
    )
    assert described
    (found,) = described.versions
    return found


@pytest.mark.parametrize(
    ("version", "state", "reason"),
    [
        (version_of, "registered", None),
        (lambda: version_of(here=True), "available", None),
        (lambda: version_of(fetching={1}), "fetching", None),
        (
            lambda: version_of(failures={1: Failure(1, "no connection", 0.0, 5.0)}),
            "failed",
            "no connection",
        ),
        (
            lambda: version_of(failures={1: Failure(1, "too young", 0.0, 5.0, short_lived=True)}),
            "fetching",
            "too young",
        ),
        (
            lambda: version_of(damaged={DIGEST: "a file is gone"}),
            "failed",
            "copy of its bytes is damaged",
        ),
        (
            lambda: version_of(AspiredVersion("m", 1, "x", stamp_problem="no digest"), here=True),
            "failed",
            "no digest",
        ),
        (lambda: version_of(here=True, quarantined=True), "quarantined", "wrong bytes"),
    ],
)
def test_a_version_has_one_state_and_its_reason(version, state, reason):
    version = version()
    assert version.state == state
    assert version.reason is None if reason is None else reason in version.reason
    assert state != "available" or (version.digest, version.size_bytes) == (DIGEST, 7)


@pytest.mark.parametrize("where", ["reason", "problems", "notes", "signature_changes", None])
def test_callers_are_told_every_reason_without_what_is_inside(where):
    reason = SECRET if where == "reason" else None
    version = CatalogueVersion(version=1, state=VersionState.FAILED, reason=reason)
    sound = CatalogueVersion(version=2, state=VersionState.AVAILABLE, digest=DIGEST)
    told = CatalogueModel(
        name="m",
        versions=[version, sound],
        notes={"champion": SECRET} if where == "notes" else {},
        signature_changes={"champion": SECRET} if where == "signature_changes" else {},
        policy=Policy(problems=[SECRET] if where == "problems" else []),
    )
    shown = for_callers(told)
    assert "c4nary" not in shown.model_dump_json()
    assert "inner-host" not in shown.model_dump_json()
    assert (shown == told) is (where is None)
    assert shown.versions[1] == sound
    assert (shown.versions[0].reason is not None) is (where == "reason")
    assert bool(shown.policy.problems) is (where == "problems")
