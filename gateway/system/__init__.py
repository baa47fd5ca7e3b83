"""The host process: files, sockets, logs, limits, and tasks that must not end silently."""

from gateway.system.cooperative import in_slices
from gateway.system.libraries import mark_of_libraries
from gateway.system.node_identity import (
    CONTROL_PLANE,
    DATA_PLANE,
    Plane,
    StartError,
    read_node_id,
    sole_owner,
)
from gateway.system.release import release_all, release_each
from gateway.system.resources import available_bytes, available_cores, cores_of_each
from gateway.system.settings_help import misnamed_settings, settings_help
from gateway.system.supervised import keep_running
from gateway.system.unix_socket import private_socket

__all__ = [
    "CONTROL_PLANE",
    "DATA_PLANE",
    "Plane",
    "StartError",
    "available_bytes",
    "available_cores",
    "cores_of_each",
    "in_slices",
    "keep_running",
    "mark_of_libraries",
    "misnamed_settings",
    "private_socket",
    "read_node_id",
    "release_all",
    "release_each",
    "settings_help",
    "sole_owner",
]
