"""The host process: files, sockets, logs, limits, and tasks that must not end silently."""

from gateway.system.cooperative import in_slices as in_slices
from gateway.system.libraries import mark_of_libraries as mark_of_libraries
from gateway.system.node_identity import (
    CONTROL_PLANE as CONTROL_PLANE,
    DATA_PLANE as DATA_PLANE,
    Plane as Plane,
    StartError as StartError,
    read_node_id as read_node_id,
    sole_owner as sole_owner,
)
from gateway.system.release import release_all as release_all, release_each as release_each
from gateway.system.resources import (
    available_bytes as available_bytes,
    available_cores as available_cores,
)
from gateway.system.settings_help import (
    NO_LONGER_A_SETTING as NO_LONGER_A_SETTING,
    misnamed_settings as misnamed_settings,
    settings_help as settings_help,
)
from gateway.system.supervised import keep_running as keep_running
from gateway.system.unix_socket import private_socket as private_socket
