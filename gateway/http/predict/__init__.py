"""The prediction routes: the head of a request, its body, and the answer."""

from gateway.http.predict.app import BodyLimits, Predictions
from gateway.http.predict.openapi import declare_predictions
from gateway.http.predict.request import request_id_of

__all__ = ["BodyLimits", "Predictions", "declare_predictions", "request_id_of"]
