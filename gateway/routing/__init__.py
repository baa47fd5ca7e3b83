"""The route table, its files, and the state of the node."""

from gateway.routing.catalogue_index import has_bytes as has_bytes
from gateway.routing.lazy_versions import ListedVersions as ListedVersions
from gateway.routing.node import (
    CONTROL_PLANE_SILENT_S as CONTROL_PLANE_SILENT_S,
    Node as Node,
    WantedVersion as WantedVersion,
)
from gateway.routing.route_table import Route as Route, RouteTable as RouteTable
from gateway.routing.table_file import TableFile as TableFile
