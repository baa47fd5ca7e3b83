"""What operators ask for and cannot have: each with a status, a code, and a sentence."""

from __future__ import annotations


class RefusedError(Exception):
    """Root. The message says what is wrong, and what to do where there is something."""

    status = 409
    code = "refused"
    title = "Refused"


class NothingToRollBackError(RefusedError):
    """There is no such alias, or nothing that it pointed at before."""

    code = "nothing_to_roll_back"
    title = "Nothing to roll back"


class UnknownError(RefusedError):
    """Neither the registry nor this node knows such a thing."""

    status = 404
    code = "not_found"
    title = "Not found"


class NotHeldError(RefusedError):
    """The alias is neither pinned nor held."""

    code = "not_held"
    title = "Not pinned"


class NotRejectedError(RefusedError):
    """The version is not rejected."""

    code = "not_rejected"
    title = "Not rejected"


class NotQuarantinedError(RefusedError):
    """The version is not quarantined."""

    code = "not_quarantined"
    title = "Not quarantined"
