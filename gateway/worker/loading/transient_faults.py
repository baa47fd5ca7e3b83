"""Whether what went wrong says something of the model, or of a moment: a network, a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_LASTING = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,  # what a library was given: a URL, a certificate, a file in another format
)
_LASTING_NUMBERS = frozenset(
    {
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        # what this system, or its file system, does not do
        errno.ENOEXEC,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
    }
)
_NETWORK = frozenset({"requests", "urllib"})
"""Libraries whose errors are OSErrors without a number."""
_OWN_NUMBERS = frozenset({"ssl", "socket"})
"""Modules whose errors are OSErrors with a number that is none of the system's: an ``SSLEOFError``
has that of ``ENOEXEC``."""
_LINKER_FOUND_NONE = (
    "failed to map segment from shared object",
    *(f": {os.strerror(number)}" for number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)),
)
"""How messages of glibc's dynamic linker end that found no memory or descriptor for a library. Its
errors have no number."""
_PASSING_STATUS = frozenset({408, 425, 429})
_FIRST_SERVER_STATUS = 500


def passing_fault(error: BaseException) -> BaseException | None:
    """Return the fault behind ``error`` that another try may not meet; None: there is none."""
    return next((one for one in _behind(error) if _passes(one)), None)


def passing_in_a_call(error: BaseException) -> BaseException | None:
    """Return the fault behind a call of a model that another worker may not meet; else None.

    Memory too: a worker that is loaded already may find none beside its neighbours.
    """
    short = (one for one in _behind(error) if isinstance(one, MemoryError))
    return passing_fault(error) or next(short, None)


def name_of(fault: BaseException) -> str:
    """Say which fault it was, without its message: that may hold data."""
    if _could_not_link(fault):
        return f"{type(fault).__name__} (no memory or descriptor to link a library)"
    name, number = type(fault).__name__, getattr(fault, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not _made_by(fault, _OWN_NUMBERS):
        return f"{name} ({os.strerror(number)})"
    return name


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that led to it, each once, hidden ones too (``from None``)."""
    pending, seen = [error], set[int]()
    while pending:
        one = pending.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            pending += [led for led in (one.__context__, one.__cause__) if led is not None]


def _passes(error: BaseException) -> bool:
    status = _http_status(error)
    if status is not None:
        return status >= _FIRST_SERVER_STATUS or status in _PASSING_STATUS
    if _could_not_link(error):
        return True
    if not isinstance(error, OSError) or isinstance(error, _LASTING):
        return False
    if error.errno is not None:
        return error.errno not in _LASTING_NUMBERS or _made_by(error, _OWN_NUMBERS)
    # Without a number it may be anybody's: a library that cannot be linked, a file of a wrong kind.
    return isinstance(error, (ConnectionError, TimeoutError)) or _made_by(error, _NETWORK)


def _could_not_link(error: BaseException) -> bool:
    """Whether a library found no memory or descriptor, by ``import`` or by ``ctypes``."""
    if not isinstance(error, (ImportError, OSError)) or getattr(error, "errno", None) is not None:
        return False
    said = error.args[0] if error.args else None
    return isinstance(said, str) and said.endswith(_LINKER_FOUND_NONE)


def _made_by(error: BaseException, modules: frozenset[str]) -> bool:
    return any(one.__module__.partition(".")[0] in modules for one in type(error).__mro__)


def _http_status(error: BaseException) -> int | None:
    """Return what a server answered, as requests and httpx keep it, or urllib; else None."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and isinstance(error, OSError):
        status = getattr(error, "code", None)
    return status if isinstance(status, int) else None
