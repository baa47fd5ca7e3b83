"""What is wrong with a quarantined version, by what was accepted, stamped and found."""

import pytest

from registry_sync.domain import AcceptedDigest, LedgerView, Quarantine
from registry_sync.domain.aspired import AspiredVersion
from registry_sync.planning.incidents import Incident, incident_of, way_out, why_not_acceptable

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MLFLOW, S3 = False, True


def quarantined(expected: str | None, found: str | None) -> Quarantine:
    return Quarantine("m", 1, expected, None, found, "why", 1.0, creation="c")


def listed(stamp: str | None, *, fixed: bool, creation: str | None = "c") -> AspiredVersion:
    return AspiredVersion("m", 1, "", expected_digest=stamp, stamp_fixed=fixed, creation=creation)


def accepted(digest: str | None, creation: str = "c") -> LedgerView:
    if digest is None:
        return LedgerView()
    known = AcceptedDigest("m", 1, digest, None, stamped=False, listing=None, creation=creation)
    return LedgerView(accepted={("m", 1): known})


@pytest.mark.parametrize(
    ("known", "stamp", "fixed", "expected", "found", "incident", "acceptable"),
    [
        (OLD, None, MLFLOW, OLD, NEW, Incident.ALTERED, True),
        (OLD, NEW, S3, OLD, NEW, Incident.ALTERED, True),
        (OLD, NEW, S3, OLD, OLD, Incident.ALTERED, False),  # the manifest alone was altered
        (OLD, None, MLFLOW, OLD, OLD, Incident.UNSTAMPED, True),  # a stamp is required by now
        (None, None, MLFLOW, None, NEW, Incident.UNSTAMPED, True),
        (None, OLD, MLFLOW, OLD, NEW, Incident.NOT_AS_STAMPED, False),
        (OLD, NEW, MLFLOW, NEW, OLD, Incident.NOT_AS_STAMPED, False),
        (None, None, MLFLOW, None, None, Incident.UNREADABLE, False),
        (OLD, None, MLFLOW, OLD, None, Incident.ALTERED, False),
    ],
)
def test_an_incident_has_a_name_and_a_way_out_that_works(
    known: str | None,
    stamp: str | None,
    fixed: bool,
    expected: str | None,
    found: str | None,
    incident: Incident,
    acceptable: bool,
) -> None:
    version, ledger = listed(stamp, fixed=fixed), accepted(known)
    one = quarantined(expected, found)
    assert incident_of(one, version, ledger) is incident
    assert (why_not_acceptable(one, version) is None) is acceptable
    says_accept = "quarantine accept" in way_out(one, version, ledger)
    assert says_accept is (acceptable and incident is Incident.ALTERED)


def test_bytes_accepted_for_another_creation_say_nothing_of_an_incident() -> None:
    version, ledger = listed(None, fixed=MLFLOW), accepted(OLD, creation="before")
    assert incident_of(quarantined(OLD, NEW), version, ledger) is Incident.NOT_AS_STAMPED
