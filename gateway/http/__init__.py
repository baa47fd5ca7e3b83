"""The HTTP surface: the public listener, and the control contract on its Unix socket."""

from gateway.http.app import (
    create_control_app as create_control_app,
    create_public_app as create_public_app,
)
from gateway.http.predict import Predictions as Predictions
from gateway.http.services import Services as Services
