"""Error families of the control plane, by who must act.

* `SourceError`: the registry or its storage cannot be read now. Nobody acts: it is tried again.
* `ArtifactError`: the publisher, or whoever altered the bytes. ``transient`` says whether a later
  try may succeed without anybody's help.
* `PublishError`: whoever publishes to an S3 registry.
* `EnvironmentFailedError`: the publisher, whose requirements cannot be met; ``transient`` as above.
* `StoreError`: the operator of this node (a store written by a newer release, a broken disk).
* `RolloutRejectedError`: the gateway said no, and why.
* `LedgerError`: the operator of the database.

Every message is a whole sentence that users may read: without secrets, whoever worded it. None
repeats a caller's data.
"""

from __future__ import annotations

from gateway.system.logs import redacted

_MOST_CHARACTERS = 300


def in_words(error: BaseException) -> str:
    """Say in one line what a library raised, and what it began with.

    Libraries wrap a refused connection three times and more, each in a longer sentence.
    """
    words = _bounded(error)
    first = _said_first(error)
    behind = f" ({first})" if first and first not in words else ""
    return f"{type(error).__name__}: {words}{behind}"


def _said_first(error: BaseException) -> str:
    """Return what the system said, else what the first of the errors in a chain says."""
    said, of_system, seen = "", "", set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        said = _bounded(cause) or said
        if isinstance(cause, OSError) and cause.strerror:
            of_system = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return of_system or said


def _bounded(error: BaseException) -> str:
    words = redacted((str(error).splitlines() or [""])[0])  # before it is cut: half of one is one
    return words if len(words) <= _MOST_CHARACTERS else words[: _MOST_CHARACTERS - 1] + "…"


class SyncError(Exception):
    """Root of everything that the control plane raises on purpose."""

    def __init__(self, message: str = "") -> None:
        """Store a message without its secrets: from here it goes into logs, state and answers."""
        super().__init__(redacted(message))

    @property
    def reason(self) -> str:
        """The message: a sentence that may be shown to users."""
        return str(self)


class SourceError(SyncError):
    """The registry, or the place where it keeps bytes, did not answer or answered nonsense."""


class ArtifactError(SyncError):
    """An artifact is not, or not yet, one that may be served.

    Attributes:
        transient: A later try of the same version may succeed by itself: back off and try again.
            False: the same bytes would fail again.
        listing: The remote listing of the bytes that it is about (`Fetched.listing`); None: not
            known.
    """

    transient: bool = False
    listing: str | None = None


class IncompleteArtifactError(ArtifactError):
    """Files are missing, or the upload is still moving. Never a reason to quarantine."""

    transient = True


class UnsettledError(IncompleteArtifactError):
    """The upload is too new: its files may still change, or more files may come."""


class ReplacedError(ArtifactError):
    """The version was deleted and made anew while its bytes were fetched."""

    transient = True


class FetchTimeoutError(ArtifactError):
    """The fetch did not end within its limit."""

    transient = True


class NoDiskRoomError(ArtifactError):
    """Fetching on would leave less free disk space than the floor."""

    transient = True


class ArtifactTooLargeError(ArtifactError):
    """More bytes or more files than the limits allow."""


class UnsafePathError(ArtifactError):
    """A path that could leave its folder, a link, or two paths that a file system may confuse."""


class ForbiddenPlaceError(ArtifactError):
    """The bytes are said to be where they are not read from: another server, an unknown kind."""


class BrokenModelError(ArtifactError):
    """The model's own files (``MLmodel`` and what it names) cannot be read."""


class DigestMismatchError(ArtifactError):
    """The bytes are not the expected ones.

    Attributes:
        expected: The digest that they should have.
        found: The digest that they have.
    """

    def __init__(self, message: str, *, expected: str, found: str) -> None:
        """Store the two digests beside the sentence."""
        super().__init__(message)
        self.expected = expected
        self.found = found


class UnstampedError(ArtifactError):
    """A digest is required, and the publisher gave none."""


class PublishError(SyncError):
    """A version, or its aliases, could not be published: whoever publishes must act."""


class EnvironmentFailedError(SyncError):
    """A version's own environment could not be built.

    Attributes:
        transient: A later try may succeed by itself. False: the same requirements would fail again.
        failure: The kind of a permanent one, as it is recorded.
    """

    FAILED = "own_environment"
    UNSUPPORTED = "own_unsupported"

    def __init__(self, message: str, *, transient: bool = False, failure: str = FAILED) -> None:
        """Store whether to try again, and the kind, beside the sentence."""
        super().__init__(message)
        self.transient = transient
        self.failure = failure


class StoreError(SyncError):
    """The artifact store on this node cannot be used as it is."""


class RolloutRejectedError(SyncError):
    """The gateway refused a change; what it served before is served still.

    Attributes:
        code: The machine code of the refusal.
        generation: The generation of its route table, where it said so.
    """

    def __init__(self, code: str, message: str, *, generation: int | None = None) -> None:
        """Store the code and the generation beside the sentence."""
        super().__init__(message)
        self.code = code
        self.generation = generation


class LedgerError(SyncError):
    """The ledger cannot be read or written."""
