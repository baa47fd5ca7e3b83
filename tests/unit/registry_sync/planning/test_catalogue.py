"""A held alias says so, at what and until when; others say nothing."""

from registry_sync.domain.aspired import AspiredModel, AspiredVersion
from registry_sync.domain.records import Hold, LedgerView
from registry_sync.planning.catalogue import Known, describe_model


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
    ledger = LedgerView(holds={("churn", "champion"): hold})
    churn, wine = (
        describe_model(name, model(name), ledger, Known(descriptions={}))
        for name in ("churn", "wine")
    )
    assert churn
    assert wine
    assert churn.notes == {
        "champion": "held at version 1 by operator until the registry points it at another "
        "version than 2"
    }
    assert wine.notes == {}
