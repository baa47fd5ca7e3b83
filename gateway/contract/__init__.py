"""The control contract of the two planes: references, and the bodies of the control API.

HTTP on a Unix socket, JSON both ways:

==================================  =======================  ==============================
request                             body                     answer
==================================  =======================  ==============================
``PUT /catalogue``                  `Catalogue`              200 `Ack`
``PUT /catalogue/models/{name}``    `ModelChange`            200 `Ack`
``POST /catalogue/unchanged``       `UnchangedCatalogue`     200 `Ack`
``POST /stage``                     `StageRequest`           202 `Ack`; the result is an event
``POST /activate``                  `ActivateRequest`        200 `Ack`
``POST /retire``                    `RetireRequest`          200 `Ack`
``POST /allow``                     `AllowRequest`           200 `Ack`
``GET /observe?after=seq&of=boot``  long poll, at most 25 s  200 `NodeState`
==================================  =======================  ==============================

Every refusal has a `Nack` as its body. ``observe?after=n`` also acknowledges every event up to n;
events that were not acknowledged are repeated. With ``of``, the boot id of the state whose ``seq``
is n, the answer may be the difference from that state: see `NodeState.since`. Both sides ignore
unknown fields, so either plane may be newer; a newer ``contract_version`` gets a `Nack`.
"""

from gateway.contract.body import (
    CONTRACT_VERSION as CONTRACT_VERSION,
    Alias as Alias,
    AliasBody as AliasBody,
    ArtifactBody as ArtifactBody,
    Body as Body,
    Digest as Digest,
    ModelName as ModelName,
)
from gateway.contract.catalogue import (
    Catalogue as Catalogue,
    CatalogueModel as CatalogueModel,
    CatalogueVersion as CatalogueVersion,
    Environment as Environment,
    ModelChange as ModelChange,
    Policy as Policy,
    UnchangedCatalogue as UnchangedCatalogue,
    VersionState as VersionState,
)
from gateway.contract.node_state import (
    OBSERVE_TIMEOUT_S as OBSERVE_TIMEOUT_S,
    AbandonedVersion as AbandonedVersion,
    ActiveAlias as ActiveAlias,
    AwaitedVersion as AwaitedVersion,
    DamagedCopy as DamagedCopy,
    DamagedFile as DamagedFile,
    Event as Event,
    EvictionCost as EvictionCost,
    NodeState as NodeState,
    RefusedDigest as RefusedDigest,
    Residency as Residency,
)
from gateway.contract.references import (
    LATEST as LATEST,
    MAX_VERSION as MAX_VERSION,
    AliasRef as AliasRef,
    ArtifactRef as ArtifactRef,
    InvalidReferenceError as InvalidReferenceError,
    Selector as Selector,
    digest_hex as digest_hex,
    parse_alias as parse_alias,
    parse_digest as parse_digest,
    parse_model_name as parse_model_name,
    parse_selector as parse_selector,
    parse_version as parse_version,
)
from gateway.contract.rollout_requests import (
    NODE_FAILURES as NODE_FAILURES,
    PERMANENT_STAGE_FAILURES as PERMANENT_STAGE_FAILURES,
    Ack as Ack,
    ActivateRequest as ActivateRequest,
    AliasTarget as AliasTarget,
    AllowRequest as AllowRequest,
    Nack as Nack,
    NackCode as NackCode,
    RetireRequest as RetireRequest,
    StageFailure as StageFailure,
    StageOutcome as StageOutcome,
    StageRequest as StageRequest,
)
from gateway.contract.times import Timestamp as Timestamp, to_rfc3339 as to_rfc3339
