"""The base of every body of the control contract, and the types that its fields share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PositiveInt

from gateway.contract.references import (
    AliasRef,
    ArtifactRef,
    parse_alias,
    parse_digest,
    parse_model_name,
)

CONTRACT_VERSION = 1


ModelName = Annotated[str, AfterValidator(parse_model_name)]


Alias = Annotated[str, AfterValidator(parse_alias)]


Digest = Annotated[str, AfterValidator(parse_digest)]


Initiator = Annotated[str, BeforeValidator(lambda word: "gateway" if word == "rule" else word)]
"""The initiator of a change. Before the first release nodes wrote ``rule`` for the gateway."""


class Body(BaseModel):
    """A body of the contract. Immutable; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class AliasBody(Body):
    """One alias of one model, or a body about it."""

    model: ModelName
    alias: Alias

    @property
    def alias_ref(self) -> AliasRef:
        """The alias."""
        return AliasRef(self.model, self.alias)


class ArtifactBody(Body):
    """A body about one version and its bytes."""

    model: ModelName
    version: PositiveInt
    digest: Digest

    @property
    def ref(self) -> ArtifactRef:
        """The version and its bytes."""
        return ArtifactRef(self.model, self.version, self.digest)
