"""How the operations listener says no: RFC 9457 problems."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from registry_sync.operations.bodies import Problem

_MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, code: str, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a refusal: ``code`` for machines, ``detail`` for people, what to do included."""
    body = Problem(title=title, status=status, detail=detail, code=code)
    return JSONResponse(body.model_dump(), status, headers, _MEDIA_TYPE)
