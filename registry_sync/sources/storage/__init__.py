"""Storages of artifacts: locations of each kind, the policy for URIs, and the fetcher."""

from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits, OnProgress, Reserve
from registry_sync.sources.storage.local import LocalLocation
from registry_sync.sources.storage.location import RemoteFile, RemoteListing, as_source_error
from registry_sync.sources.storage.s3 import S3Location, connect_s3, refuse_passwords
from registry_sync.sources.storage.s3_errors import is_changed, is_gone, is_unknown
from registry_sync.sources.storage.watched_reads import parts_in_order, wait_for

__all__ = [
    "FetchLimits",
    "Fetcher",
    "LocalLocation",
    "OnProgress",
    "RemoteFile",
    "RemoteListing",
    "Reserve",
    "S3Location",
    "as_source_error",
    "connect_s3",
    "is_changed",
    "is_gone",
    "is_unknown",
    "parts_in_order",
    "refuse_passwords",
    "wait_for",
]
