"""Incidents of quarantined versions, and the way out of each. Pure."""

from __future__ import annotations

from enum import StrEnum

from registry_sync.domain import AspiredVersion, LedgerView, Quarantine, accepted


class Incident(StrEnum):
    """Why bytes are wrong.

    ``ALTERED``: they changed under a number that never went away. ``NOT_AS_STAMPED``: they are not
    what the publisher stamped. ``UNSTAMPED``: this node requires a stamp and there is none.
    ``UNREADABLE``: they are no artifact at all.
    """

    ALTERED = "altered"
    NOT_AS_STAMPED = "not_as_stamped"
    UNSTAMPED = "unstamped"
    UNREADABLE = "unreadable"


def incident_of(found: Quarantine, listed: AspiredVersion, ledger: LedgerView) -> Incident:
    """Say what is wrong, by what is remembered of this creation of the version."""
    known = accepted(listed, ledger)
    is_stamp = listed.stamped and not listed.stamp_fixed
    if known is not None and known.digest == found.expected_digest and not is_stamp:
        says_other = listed.expected_digest not in (None, known.digest)
        if found.found_digest != known.digest or says_other:
            return Incident.ALTERED
        return Incident.UNSTAMPED  # they are what they were, and a stamp is required by now
    if found.found_digest is None:
        return Incident.UNREADABLE
    return Incident.UNSTAMPED if found.expected_digest is None else Incident.NOT_AS_STAMPED


def why_not_acceptable(found: Quarantine, listed: AspiredVersion) -> str | None:
    """Say why no operator can accept the bytes as they were found; None: one can."""
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
    """Return what ends a quarantine of this kind, as a sentence for users."""
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


def told(found: Quarantine, listed: AspiredVersion, ledger: LedgerView) -> str:
    """Return what is wrong with a version and the way out, as a sentence for users."""
    return f"{found.reason}; {way_out(found, listed, ledger)}"
