"""The route table, its files, and the state of the node."""

from gateway.routing.catalogue_index import has_bytes
from gateway.routing.lazy_versions import ListedVersions
from gateway.routing.node import Node, WantedVersion
from gateway.routing.route_table import Route, RouteTable
from gateway.routing.table_file import TableFile

__all__ = [
    "ListedVersions",
    "Node",
    "Route",
    "RouteTable",
    "TableFile",
    "WantedVersion",
    "has_bytes",
]
