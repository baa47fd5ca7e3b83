"""Errors of requests and changes, in families by the party that must act. Independent of HTTP.

`RequestError`: the caller must change the request. `CapacityError`: the caller may try again.
`ServingError`: a fault of the gateway, the registry or the model. `RolloutRefusedError`: a refusal
to the control plane. Messages are for people, and never have a caller's data.
"""

from __future__ import annotations

from typing import ClassVar

from gateway.system.logs import redacted


class GatewayError(Exception):
    """An error that a caller gets as its answer.

    Attributes:
        code: For machines.
        message: For people.
        details: Faults of the input or the answer, each ``[row or None, field or None, reason]``.
        retry_after_s: Seconds after which the caller may try again, or None if unknown.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        details: list[list[object]] | None = None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or []
        self.retry_after_s = retry_after_s


class RequestError(GatewayError):
    """The caller must change the request."""


class ModelNotFoundError(RequestError):
    """No registered model has this name."""

    code = "model_not_found"


class VersionNotFoundError(RequestError):
    """The model has no such version."""

    code = "version_not_found"


class AliasNotFoundError(RequestError):
    """The model has no such alias."""

    code = "alias_not_found"


class NoDefaultVersionError(RequestError):
    """The request names no version, and the model has neither a default alias nor ``latest``."""

    code = "no_default_version"


class VersionDeletedError(RequestError):
    """The version was deleted in the registry, and its bytes are gone from this node."""

    code = "version_deleted"


class InvalidSelectorError(RequestError):
    """A model's name, a version or an alias is malformed."""

    code = "invalid_selector"


class InvalidTimeoutError(RequestError):
    """``X-Request-Timeout`` is not a number of seconds."""

    code = "invalid_timeout"


class VersionConflictError(RequestError):
    """Path and header name different versions."""

    code = "version_conflict"


class MediaTypeError(RequestError):
    """The route does not read the body's content type or encoding."""

    code = "unsupported_media_type"


class InvalidInputError(RequestError):
    """The body does not fit the model's signature."""

    code = "invalid_input"


class CapacityError(GatewayError):
    """The same request may succeed later."""


class ModelLoadingError(CapacityError):
    """The version is being fetched, loaded or warmed, or waits for room.

    Attributes:
        awaited: Model, version and alias if the caller waits for an inactive alias, so that it is
            activated before others, or None if the caller waits for the version.
    """

    code = "model_loading"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        awaited: tuple[str, int, str] | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.awaited = awaited


class ModelOverloadedError(CapacityError):
    """Too many requests of this version are in flight."""

    code = "model_overloaded"


class GatewayOverloadedError(CapacityError):
    """Too many requests of all models together are in flight on this gateway."""

    code = "gateway_overloaded"


class InsufficientMemoryError(CapacityError):
    """The version would not fit even in an empty resident set."""

    code = "insufficient_memory"


class DrainingError(CapacityError):
    """The gateway is shutting down."""

    code = "draining"


class ServingError(GatewayError):
    """A fault of the gateway, the registry or the model."""


class RegistryUnavailableError(ServingError):
    """The bytes are not on this node, and the control plane that could fetch them is silent."""

    code = "registry_unavailable"


class ModelLoadFailedError(ServingError):
    """The last fetch or load failed; the next try comes after ``retry_after_s``.

    Attributes:
        failure: As of `LoadError`.
        not_fetched: The model and version whose fetch failed, or None if the load failed.
    """

    code = "model_load_failed"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        failure: str = "load_failed",
        not_fetched: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.failure = failure
        self.not_fetched = not_fetched


class VersionQuarantinedError(ServingError):
    """The version's bytes are wrong."""

    code = "version_quarantined"


class WorkerDiedError(ServingError):
    """The worker ended with this request inside."""

    code = "worker_died"


class DeadlineExceededError(ServingError):
    """The answer did not come in time."""

    code = "deadline_exceeded"


class ModelRaisedError(ServingError):
    """The model's own code raised an exception.

    Attributes:
        begun: Whether the model was called; only then the failure counts against the version.
    """

    code = "model_error"

    def __init__(
        self,
        message: str,
        details: list[list[object]] | None = None,
        *,
        retry_after_s: float | None = None,
        begun: bool = True,
    ) -> None:
        super().__init__(message, details, retry_after_s=retry_after_s)
        self.begun = begun


class NotFiniteAnswerError(ModelRaisedError):
    """The answer has a number that is not finite, and this gateway does not send null instead."""

    code = "not_finite"


class NotDeliveredError(Exception):
    """The request did not reach its worker; another may take it. Never shown to a caller."""


class DisplacedError(Exception):
    """The version that a caller waited for ended before its successor was ready.

    The call must be resolved again. Never shown to a caller.
    """


class LoadError(Exception):
    """A replica did not become ready.

    Attributes:
        failure: A `StageFailure` of the control contract.
        message: The reason, as a sentence without secrets, since models may write it.
    """

    def __init__(self, failure: str, message: str) -> None:
        message = redacted(message)
        super().__init__(f"{failure}: {message}")
        self.failure = failure
        self.message = message


class RolloutRefusedError(Exception):
    """This node refuses a change; its route table is unchanged.

    Attributes:
        code: A `NackCode` of the control contract.
        message: The reason, as a sentence.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class TableFileError(Exception):
    """A file of the node cannot be read or written; the message names it and says what to do."""
