"""The prediction routes: the head of a request, its body, and the answer."""

from gateway.http.predict.app import Predictions as Predictions
from gateway.http.predict.openapi import declare_predictions as declare_predictions
from gateway.http.predict.request import request_id_of as request_id_of
