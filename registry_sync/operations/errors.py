"""Refusals of the operations listener: RFC 9457 problems."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from registry_sync.domain import Problem
from registry_sync.errors import LedgerError
from registry_sync.reconcile import NodeView

_MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a refusal: ``code`` for machines, ``detail`` for people, with the remedy."""
    title = code.replace("_", " ").capitalize()
    body = Problem(title=title, status=status, detail=detail, code=code)
    return JSONResponse(body.model_dump(), status, headers, _MEDIA_TYPE)


class RefusedError(Exception):
    """Root of the refusals. The message says what is wrong, and what to do."""

    status = 409
    code = "refused"


class NothingToRollBackError(RefusedError):
    """The alias does not exist, or has no previous version."""

    code = "nothing_to_roll_back"


class CannotServeError(RefusedError):
    """The version may not serve on this node now; nothing was decided."""

    code = "cannot_serve"


class UnknownError(RefusedError):
    """Neither the registry nor this node knows the model, version or alias."""

    status = 404
    code = "not_found"


class NotHeldError(RefusedError):
    """The alias is neither pinned nor held."""

    code = "not_held"


class NotRejectedError(RefusedError):
    """The version is not rejected."""

    code = "not_rejected"


class NotQuarantinedError(RefusedError):
    """The version is not quarantined."""

    code = "not_quarantined"


def not_recorded(view: NodeView, unchanged: str) -> LedgerError:
    """Return the error of a decision that the ledger did not record.

    ``unchanged`` is a sentence, such as "churn/3 stays rejected".
    """
    why = view.ledger_error or "the ledger did not record it"
    return LedgerError(
        f"{unchanged}, since its end is not recorded: {why}; run the command again when "
        "`registry-gateway status` shows that the ledger answers"
    )
