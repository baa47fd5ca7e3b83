"""Incidents of quarantined versions, and the way out of each. Pure."""

from __future__ import annotations

from enum import StrEnum

from registry_sync.domain import AspiredVersion, LedgerView, Quarantine, accepted


class Incident(StrEnum):
    """The kind of a quarantine.

    ``ALTERED``: the bytes changed under a number that never went away. ``NOT_AS_STAMPED``: the
    bytes do not match the stamp. ``UNSTAMPED``: this node requires a stamp, and the version has
    none. ``UNREADABLE``: the bytes cannot be read as an artifact.
    """

    ALTERED = "altered"
    NOT_AS_STAMPED = "not_as_stamped"
    UNSTAMPED = "unstamped"
    UNREADABLE = "unreadable"


def incident_of(found: Quarantine, listed: AspiredVersion, ledger: LedgerView) -> Incident:
    """Return the incident, judged by the digest accepted for this creation of the version."""
    known = accepted(listed, ledger)
    is_stamp = listed.stamped and not listed.stamp_fixed
    if known is not None and known.digest == found.expected_digest and not is_stamp:
        says_other = listed.expected_digest not in (None, known.digest)
        if found.found_digest != known.digest or says_other:
            return Incident.ALTERED
        return Incident.UNSTAMPED  # unchanged bytes: a stamp is required since
    if found.found_digest is None:
        return Incident.UNREADABLE
    return Incident.UNSTAMPED if found.expected_digest is None else Incident.NOT_AS_STAMPED


def why_not_acceptable(found: Quarantine, listed: AspiredVersion) -> str | None:
    """Return why an operator cannot accept the found bytes, or None if that is possible."""
    name = f"version {found.version} of {found.model!r}"
    if found.found_digest is None:
        return f"the bytes of {name} cannot be read as an artifact: register a new version"
    if listed.expected_digest not in (None, found.found_digest):
        return (
            f"the bytes of {name} have digest {found.found_digest}, and the publisher says "
            f"{listed.expected_digest}: {_STAMP[listed.stamp_fixed].format(found)}"
        )
    return None


_STAMP = {
    False: "stamp them with `registry-gateway stamp models:/{0.model}/{0.version}`, or upload what "
    "was stamped",
    True: "publish them as a new version, or upload what was published",
}


def way_out(found: Quarantine, listed: AspiredVersion, ledger: LedgerView) -> str:
    """Return how to end a quarantine of this kind, as a sentence for users."""
    name = f"{found.model}/{found.version}"
    match incident_of(found, listed, ledger):
        case Incident.ALTERED if why_not_acceptable(found, listed) is None:
            return (
                "the bytes were altered under a number that this node never saw go away: register "
                f"them as a new version, or `registry-gateway quarantine accept {name}` takes "
                "them as they are now"
            )
        case Incident.ALTERED | Incident.UNREADABLE:
            return (
                "register a new version, or put back the bytes, and the manifest of a bucket, that "
                "were accepted before"
            )
        case Incident.UNSTAMPED:
            return f"stamp it with `registry-gateway stamp models:/{name}`"
        case Incident.NOT_AS_STAMPED:
            return _STAMP[listed.stamp_fixed].format(found)


def explain_quarantine(found: Quarantine, listed: AspiredVersion, ledger: LedgerView) -> str:
    """Return the reason of a quarantine and the way out, as a sentence for users."""
    return f"{found.reason}; {way_out(found, listed, ledger)}"
