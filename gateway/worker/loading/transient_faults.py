"""Distinguish transient faults, such as a network error or a full disk, from faults of a model."""

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
    ValueError,  # bad input to a library: a URL, a certificate, a file in another format
)
_LASTING_NUMBERS = frozenset(
    {
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        # not supported by this system or its file system
        errno.ENOEXEC,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
    }
)
_NETWORK = frozenset({"requests", "urllib", "ssl", "socket"})
"""Modules whose OSErrors have no number, or one of their own: an ``SSLEOFError`` has that of
``ENOEXEC``."""
_LINKER_FOUND_NONE = (
    "failed to map segment from shared object",
    *(f": {os.strerror(number)}" for number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)),
)
"""Ends of the messages of glibc's linker if it lacks memory or a descriptor for a library. Such
errors have no number."""
_PASSING_STATUS = frozenset({408, 425, 429})
_FIRST_SERVER_STATUS = 500


def passing_fault(error: BaseException) -> BaseException | None:
    """Return the transient fault that led to ``error``, or None."""
    return next((one for one in _causes(error) if _passes(one)), None)


def passing_in_a_call(error: BaseException) -> BaseException | None:
    """Return the transient fault that led to the failure of a model's call, or None.

    A lack of memory is one too: it may come from the neighbours of a loaded worker.
    """
    short = (one for one in _causes(error) if isinstance(one, MemoryError))
    return passing_fault(error) or next(short, None)


def name_of(fault: BaseException) -> str:
    """Return the name of a fault without its message, which may hold data."""
    if _could_not_link(fault):
        return f"{type(fault).__name__} (no memory or descriptor to link a library)"
    name, number = type(fault).__name__, getattr(fault, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not _is_of_a_network(fault):
        return f"{name} ({os.strerror(number)})"
    return name


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, each once, including those hidden by ``from None``."""
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
    if isinstance(error, (ConnectionError, TimeoutError)) or _is_of_a_network(error):
        return True
    # Without a number it may be a library that cannot be linked, or a file of a wrong kind.
    return error.errno is not None and error.errno not in _LASTING_NUMBERS


def _could_not_link(error: BaseException) -> bool:
    """Return True if ``import`` or ``ctypes`` lacked memory or a descriptor for a library."""
    if not isinstance(error, (ImportError, OSError)) or getattr(error, "errno", None) is not None:
        return False
    said = error.args[0] if error.args else None
    return isinstance(said, str) and said.endswith(_LINKER_FOUND_NONE)


def _is_of_a_network(error: BaseException) -> bool:
    return any(one.__module__.partition(".")[0] in _NETWORK for one in type(error).__mro__)


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of requests, httpx or urllib, or None."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and isinstance(error, OSError):
        status = getattr(error, "code", None)
    return status if isinstance(status, int) else None
