"""Registries that say what is aspired, and the places where their bytes are."""

from registry_sync.sources.lazy_registry import LazyRegistry
from registry_sync.sources.mlflow_registry import bound_mlflow
from registry_sync.sources.s3_layout import ModelLocation, Root
from registry_sync.sources.s3_publisher import Publication, Publisher, read_folder
from registry_sync.sources.s3_registry import SCHEME
from registry_sync.sources.source import Source
from registry_sync.sources.storage import (
    Fetcher,
    FetchLimits,
    OnProgress,
    Reserve,
    as_source_error,
    connect_s3,
    refuse_passwords,
)

__all__ = [
    "SCHEME",
    "FetchLimits",
    "Fetcher",
    "LazyRegistry",
    "ModelLocation",
    "OnProgress",
    "Publication",
    "Publisher",
    "Reserve",
    "Root",
    "Source",
    "as_source_error",
    "bound_mlflow",
    "connect_s3",
    "read_folder",
    "refuse_passwords",
]
