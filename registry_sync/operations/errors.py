"""How the operations listener says no: RFC 9457 problems."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from registry_sync.domain import Problem
from registry_sync.errors import LedgerError
from registry_sync.reconcile import NodeView

_MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, code: str, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a refusal: ``code`` for machines, ``detail`` for people, what to do included."""
    body = Problem(title=title, status=status, detail=detail, code=code)
    return JSONResponse(body.model_dump(), status, headers, _MEDIA_TYPE)


class RefusedError(Exception):
    """Root. The message says what is wrong, and what to do where there is something."""

    status = 409
    code = "refused"
    title = "Refused"


class NothingToRollBackError(RefusedError):
    """There is no such alias, or nothing that it pointed at before."""

    code = "nothing_to_roll_back"
    title = "Nothing to roll back"


class CannotServeError(RefusedError):
    """The version may not serve here, as things are: nothing was decided."""

    code = "cannot_serve"
    title = "Cannot serve"


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


def not_recorded(view: NodeView, unchanged: str) -> LedgerError:
    """Return the error that says what stays as it is, since the ledger does not record more.

    ``unchanged`` is a sentence, such as "churn/3 stays rejected".
    """
    why = view.ledger_error or "the ledger did not take it"
    return LedgerError(
        f"{unchanged}, since its end is not recorded: {why}; run the command again when "
        "`registry-gateway status` shows that the ledger takes it"
    )
