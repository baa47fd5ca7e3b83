"""The HTTP surface: the public listener, and the control contract on its Unix socket."""

from gateway.http.app import create_control_app, create_public_app
from gateway.http.predict import Predictions
from gateway.http.services import Services

__all__ = ["Predictions", "Services", "create_control_app", "create_public_app"]
