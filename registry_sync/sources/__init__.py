"""Registries, and the locations of their versions' bytes."""

from registry_sync.sources.mlflow_registry import connect_mlflow as connect_mlflow
from registry_sync.sources.s3_layout import (
    SCHEME as SCHEME,
    ModelLocation as ModelLocation,
    Root as Root,
)
from registry_sync.sources.s3_publisher import (
    Publication as Publication,
    Publisher as Publisher,
    read_folder as read_folder,
)
from registry_sync.sources.s3_registry import connect_s3_registry as connect_s3_registry
from registry_sync.sources.source import Source as Source
from registry_sync.sources.storage import (
    Fetcher as Fetcher,
    FetchLimits as FetchLimits,
    OnProgress as OnProgress,
    Reserve as Reserve,
    as_source_error as as_source_error,
    connect_s3 as connect_s3,
    refuse_passwords as refuse_passwords,
)
