"""What can go wrong with a request or a change, in families by who must act. Knows no HTTP.

`RequestError`: the caller must change something. `CapacityError`: the caller may try again.
`ServingError`: ours, or the registry's, or the model's. `RolloutRefusedError`: a refusal to the
control plane. Messages are written for the person who reads them and never hold a caller's data.
"""

from __future__ import annotations

from typing import ClassVar

from gateway.system.logs import redacted


class GatewayError(Exception):
    """Anything that this gateway answers with an error.

    Attributes:
        code: For machines.
        message: For people.
        details: Faults of the input or the answer, each ``[row or None, field or None, reason]``.
        retry_after_s: Seconds after which the caller may come back, or None if unknown.
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
    """No version was named, and the model has neither a default alias nor a ``latest``."""

    code = "no_default_version"


class VersionDeletedError(RequestError):
    """The version was deleted in the registry, and its bytes are gone from this node."""

    code = "version_deleted"


class InvalidSelectorError(RequestError):
    """A model's name, a version or an alias is spelled wrong."""

    code = "invalid_selector"


class InvalidTimeoutError(RequestError):
    """``X-Request-Timeout`` is not a number of seconds."""

    code = "invalid_timeout"


class VersionConflictError(RequestError):
    """Path and header name different versions."""

    code = "version_conflict"


class MediaTypeError(RequestError):
    """The body's content type or encoding is not one that this route reads."""

    code = "unsupported_media_type"


class InvalidInputError(RequestError):
    """The body is not what the model's signature asks for."""

    code = "invalid_input"


class CapacityError(GatewayError):
    """Not now; the same request may succeed later."""


class ModelLoadingError(CapacityError):
    """The version is being fetched, loaded or warmed, or waits for room.

    Attributes:
        awaited: Model, version and alias where an alias is not active yet, which is to mean the
            version: its caller has it brought up before others. None: the version itself is waited
            for.
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
    """Too many requests are in flight on this gateway, of all models together."""

    code = "gateway_overloaded"


class InsufficientMemoryError(CapacityError):
    """The version would not fit even in an empty resident set."""

    code = "insufficient_memory"


class DrainingError(CapacityError):
    """The gateway is shutting down."""

    code = "draining"


class ServingError(GatewayError):
    """The caller did nothing wrong."""


class RegistryUnavailableError(ServingError):
    """The bytes are not on this node, and the control plane that could fetch them is silent."""

    code = "registry_unavailable"


class ModelLoadFailedError(ServingError):
    """The last fetch or load failed; the next try comes after ``retry_after_s``.

    Attributes:
        failure: As of `LoadError`.
        not_fetched: Model and version whose bytes could not be fetched, or None if they are here.
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
        begun: Whether the model was called for it: only then it says something of the version.
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
    """The model answered a number that is not finite, and this gateway sends no null for it."""

    code = "not_finite"


class NotDeliveredError(Exception):
    """A request never reached its worker; it may be given to another. Never shown to a caller."""


class DisplacedError(Exception):
    """The version a caller waited for made room for its successor before that was up.

    Whom the caller means is to be asked again. Never shown to a caller.
    """


class LoadError(Exception):
    """A replica could not be brought up.

    Attributes:
        failure: A `StageFailure` of the control contract.
        message: Why, as a sentence.
    """

    def __init__(self, failure: str, message: str) -> None:
        """Store the failure's kind, and its reason without secrets: models word some of them."""
        message = redacted(message)
        super().__init__(f"{failure}: {message}")
        self.failure = failure
        self.message = message


class RolloutRefusedError(Exception):
    """A change that this node does not make; what it served before, it serves still.

    Attributes:
        code: A `NackCode` of the control contract.
        message: Why, as a sentence.
    """

    def __init__(self, code: str, message: str) -> None:
        """Store the machine code and the reason."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class TableFileError(Exception):
    """A file of the node cannot be read or written; the message names it and says what to do."""
