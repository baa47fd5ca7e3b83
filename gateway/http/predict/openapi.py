"""The prediction routes in the OpenAPI document. FastAPI does not serve them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

_BODY: dict[str, Any] = {
    "type": "object",
    "description": "Exactly one of `instances`, `inputs`, `dataframe_split`, `dataframe_records` "
    "or `features`, and optionally `params`; or one request of an LLM's client, with `messages`, "
    "`prompt` or `input`. Unknown members are refused.",
    "properties": {
        "instances": {"description": "Rows: records of a column model, tensors of a tensor model."},
        "inputs": {
            "description": "Columns by name; one record, where a column holds lists or objects; "
            "one tensor, or tensors by name; a list of values, for a model with type hints."
        },
        "dataframe_split": {
            "type": "object",
            "properties": {
                "columns": {"type": "array", "items": {"type": "string"}},
                "data": {"type": "array", "items": {"type": "array", "items": {}}},
                "index": {"type": "array", "items": {"type": ["string", "number", "null"]}},
            },
        },
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "features": {"description": "One row: values in the signature's order, or by column."},
        "params": {"type": "object", "description": "Parameters that the signature declares."},
    },
    "example": {"dataframe_records": [{"sepal_length": 5.1, "sepal_width": 3.5}]},
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["predictions", "model_name", "model_version", "prediction_id", "timestamp"],
    "properties": {
        "predictions": {"description": "One item per row, or one answer to all rows."},
        "model_name": {"type": "string"},
        "model_version": {"type": "integer"},
        "prediction_id": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "inference_time_ms": {"type": "number"},
        "probabilities": {
            "type": "array",
            "items": {"type": "array", "items": {"type": ["number", "array"]}},
            "description": "Per row, a number for each class, or such a list for each output.",
        },
        "class_names": {"type": "array", "items": {}},
    },
}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": ["integer", "null"]},
                    "field": {"type": ["string", "null"]},
                    "reason": {"type": "string"},
                },
            },
        },
    },
}
_ERRORS = {
    "400": "A selector is malformed, or path and header disagree.",
    "404": "Unknown model, version or alias, or no default version.",
    "410": "The version was deleted, and its bytes are gone.",
    "413": "The body is too large.",
    "415": "The content type is not JSON.",
    "422": "The body does not match the signature, or the model has no probabilities; "
    "`errors` names row and field.",
    "429": "Too many requests of this version are in flight.",
    "500": "The model raised an exception.",
    "503": "Loading, load failed, quarantined, registry unavailable or draining; see `code`.",
    "504": "No answer in time.",
    "507": "The model does not fit in this gateway's memory.",
}


def declare_predictions(app: FastAPI) -> None:
    """Declare both prediction routes; other methods than POST are a 405."""
    by_header = "/models/{model}/predict"
    by_path = "/models/{model}/versions/{version}/predict"
    for path in (by_path, by_header):
        app.add_api_route(
            path,
            _never_called,
            methods=["POST"],
            response_class=Response,
            openapi_extra=_operation(by_path=path == by_path),
        )


async def _never_called() -> None:
    raise AssertionError("the prediction routes are served in front of this application")


def _operation(*, by_path: bool) -> dict[str, Any]:
    where = "path" if by_path else "header"
    selector = {
        "name": "version" if by_path else "X-Model-Version",
        "in": where,
        "required": by_path,
        "schema": {"type": "string"},
        "description": "A version number, an alias (`@champion` in a path), or `latest`.",
    }
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    probabilities = {
        "name": "probabilities",
        "in": "query",
        "required": False,
        "schema": {"type": "boolean", "default": False},
        "description": "Add `probabilities` and `class_names`; 422 where the model has none.",
    }
    return {
        "tags": ["predict"],
        "summary": f"Predict with a version named by {where}",
        "operationId": f"predict_by_{where}",
        "parameters": [model, selector, probabilities],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        "responses": {
            "200": {
                "description": "Predictions; the headers name their version.",
                "headers": {
                    name: {"schema": {"type": "string"}}
                    for name in (
                        "X-Model-Version",
                        "X-Model-Digest",
                        "X-Route-Generation",
                        "X-Request-Id",
                        "Server-Timing",
                    )
                },
                "content": {"application/json": {"schema": _ANSWER}},
            }
        }
        | {
            status: {
                "description": text,
                "content": {"application/problem+json": {"schema": _PROBLEM}},
            }
            for status, text in _ERRORS.items()
        },
    }
