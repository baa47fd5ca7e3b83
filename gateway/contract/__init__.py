"""What both planes speak: references, and the bodies of the control API.

HTTP on a Unix socket, JSON both ways:

=================================  =======================  ====================================
request                            body                     answer
=================================  =======================  ====================================
``PUT /catalogue``                 `Catalogue`              200 `CatalogueAck`; 409 stale epoch
``PUT /catalogue/models/{name}``   `ModelChange`            200 `CatalogueAck`; 409 stale epoch
``POST /catalogue/unchanged``      `UnchangedCatalogue`     200 `CatalogueAck`; 409 stale epoch
``POST /stage``                    `StageRequest`           202 `StageAck`; the result is an event
``POST /activate``                 `ActivateRequest`        200 `ActivateAck`; 409 `Nack`
``POST /retire``                   `RetireRequest`          200 `RetireAck`; 409 `Nack`
``POST /allow``                    `AllowRequest`         200 `AllowAck`; 409 `Nack`
``GET /observe?after=seq&of=boot``  long poll, at most 25 s  200 `NodeState`
=================================  =======================  ====================================

Every refusal has a `Nack` as its body. ``observe?after=n`` also acknowledges every event up to n;
events that were not acknowledged are repeated. With ``of``, the boot id of the state that n came
with, the answer may be the difference from that state: see `NodeState.since`. Unknown fields are
ignored on both sides, so either plane may be the newer one; a newer ``contract_version`` is refused
with a sentence.
"""

from gateway.contract.body import (
    CONTRACT_VERSION,
    Alias,
    AliasBody,
    ArtifactBody,
    Body,
    Digest,
    ModelName,
)
from gateway.contract.catalogue import (
    Catalogue,
    CatalogueAck,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    ModelChange,
    Policy,
    UnchangedCatalogue,
    VersionState,
)
from gateway.contract.changes import (
    PERMANENT_STAGE_FAILURES,
    ActivateAck,
    ActivateRequest,
    AliasTarget,
    AllowAck,
    AllowRequest,
    Nack,
    NackCode,
    RetireAck,
    RetireRequest,
    StageAck,
    StageFailure,
    StageOutcome,
    StageRequest,
)
from gateway.contract.node_state import (
    OBSERVE_TIMEOUT_S,
    AbandonedVersion,
    ActiveAlias,
    AwaitedVersion,
    DamagedCopy,
    DamagedFile,
    Event,
    NodeState,
    RefusedDigest,
)
from gateway.contract.references import (
    LATEST,
    MAX_VERSION,
    AliasRef,
    ArtifactRef,
    InvalidReferenceError,
    ModelVersion,
    Selector,
    SelectorKind,
    digest_hex,
    parse_alias,
    parse_digest,
    parse_model_name,
    parse_selector,
    parse_version,
)
from gateway.contract.times import Timestamp, to_rfc3339

__all__ = [
    "CONTRACT_VERSION",
    "LATEST",
    "MAX_VERSION",
    "OBSERVE_TIMEOUT_S",
    "PERMANENT_STAGE_FAILURES",
    "AbandonedVersion",
    "ActivateAck",
    "ActivateRequest",
    "ActiveAlias",
    "Alias",
    "AliasBody",
    "AliasRef",
    "AliasTarget",
    "AllowAck",
    "AllowRequest",
    "ArtifactBody",
    "ArtifactRef",
    "AwaitedVersion",
    "Body",
    "Catalogue",
    "CatalogueAck",
    "CatalogueModel",
    "CatalogueVersion",
    "DamagedCopy",
    "DamagedFile",
    "Digest",
    "Environment",
    "Event",
    "InvalidReferenceError",
    "ModelChange",
    "ModelName",
    "ModelVersion",
    "Nack",
    "NackCode",
    "NodeState",
    "Policy",
    "RefusedDigest",
    "RetireAck",
    "RetireRequest",
    "Selector",
    "SelectorKind",
    "StageAck",
    "StageFailure",
    "StageOutcome",
    "StageRequest",
    "Timestamp",
    "UnchangedCatalogue",
    "VersionState",
    "digest_hex",
    "parse_alias",
    "parse_digest",
    "parse_model_name",
    "parse_selector",
    "parse_version",
    "to_rfc3339",
]
