"""Error families of the control plane, by the person who must act.

* `SourceError`: no person; the control plane reads the registry or its storage again.
* `ArtifactError`: the publisher, unless it is ``transient``.
* `PublishError`: the publisher to an S3 registry.
* `EnvironmentFailedError`: the publisher, unless it is ``transient``.
* `StoreError`: the operator of the node (a newer release's store, a broken disk).
* `RolloutRejectedError`: depends on the gateway's code.
* `LedgerError`: the operator of the database.

Every message is a sentence for users, without secrets and without data of callers.
"""

from __future__ import annotations

from gateway.system.logs import redacted

_MOST_CHARACTERS = 300


def error_text(error: BaseException) -> str:
    """Return a library's error in one line, with its first cause.

    Libraries wrap a refused connection three times and more, each in a longer sentence.
    """
    text, cause = _bounded(error), _first_cause(error)
    suffix = f" ({cause})" if cause and cause not in text else ""
    return f"{type(error).__name__}: {text}{suffix}"


def _first_cause(error: BaseException) -> str:
    """Return the system's message in a chain of errors, or else the first message."""
    first, of_system, seen = "", "", set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        first = _bounded(cause) or first
        if isinstance(cause, OSError) and cause.strerror:
            of_system = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return of_system or first


def _bounded(error: BaseException) -> str:
    text = redacted(
        (str(error).splitlines() or [""])[0]
    )  # before the cut: a part of a secret is secret
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


class SyncError(Exception):
    """Root of the control plane's errors. Their messages are shown, so they keep no secrets."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))

    @property
    def reason(self) -> str:
        """The message, a sentence for users."""
        return str(self)


class SourceError(SyncError):
    """The registry or its storage did not answer, or sent an invalid answer."""


class ArtifactError(SyncError):
    """An artifact cannot be served, or not yet.

    Attributes:
        transient: Whether a later attempt may succeed; if not, the same bytes would fail again.
        listing: Mark of the remote listing (`FetchedArtifact.listing`), or None if unknown.
    """

    transient: bool = False
    listing: str | None = None


class IncompleteArtifactError(ArtifactError):
    """Files are missing, or the upload is unfinished. Never a reason to quarantine."""

    transient = True


class UnstableUploadError(IncompleteArtifactError):
    """The upload is too new: its files may still change."""


class ReplacedError(ArtifactError):
    """The version was deleted and made anew while its bytes were fetched."""

    transient = True


class FetchTimeoutError(ArtifactError):
    """The fetch did not end within its limit."""

    transient = True


class NoDiskRoomError(ArtifactError):
    """The fetch would leave too little free disk space."""

    transient = True


class ArtifactTooLargeError(ArtifactError):
    """The artifact has more bytes or files than the limits allow."""


class UnsafePathError(ArtifactError):
    """A path could leave its folder, is a link, or may be confused with another path."""


class ForbiddenUriError(ArtifactError):
    """The URI of the bytes names another server, or has an unknown scheme."""


class BrokenModelError(ArtifactError):
    """The model's own files (``MLmodel`` and the files it names) cannot be read."""


class PublishError(SyncError):
    """A version or its aliases could not be published."""


class EnvironmentFailedError(SyncError):
    """A version's own environment could not be built.

    ``failure`` is the recorded kind of a permanent failure.
    """

    FAILED = "environment"
    UNSUPPORTED = "unsupported"

    def __init__(self, message: str, *, transient: bool = False, failure: str = FAILED) -> None:
        super().__init__(message)
        self.transient = transient
        self.failure = failure


class StoreError(SyncError):
    """The artifact store of this node cannot be used."""


class RolloutRejectedError(SyncError):
    """The gateway refused a change, and serves the same versions as before.

    ``code`` is the gateway's code of the refusal.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LedgerError(SyncError):
    """The ledger cannot be read or written."""
