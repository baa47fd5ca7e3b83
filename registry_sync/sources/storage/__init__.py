"""Storages of artifacts: locations of each kind, the policy for URIs, and the fetcher."""

from registry_sync.sources.storage.fetcher import (
    Fetcher as Fetcher,
    FetchLimits as FetchLimits,
    OnProgress as OnProgress,
    Reserve as Reserve,
)
from registry_sync.sources.storage.local import LocalLocation as LocalLocation
from registry_sync.sources.storage.location import (
    RemoteFile as RemoteFile,
    RemoteListing as RemoteListing,
    as_source_error as as_source_error,
    stored_part as stored_part,
)
from registry_sync.sources.storage.s3 import (
    S3Location as S3Location,
    connect_s3 as connect_s3,
    refuse_passwords as refuse_passwords,
)
from registry_sync.sources.storage.s3_errors import (
    is_changed as is_changed,
    is_gone as is_gone,
    is_unknown as is_unknown,
)
from registry_sync.sources.storage.watched_reads import (
    parts_in_order as parts_in_order,
    wait_for as wait_for,
)
