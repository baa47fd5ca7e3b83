"""Which failures of a load or a warm-up are a moment's, and which are the model's own."""

import errno
import gzip
import io
import itertools
import socket
import ssl
import urllib.error
from email.message import Message

import httpx
import pytest
import requests

from gateway.worker.loading.transient_faults import name_of, passing_fault

URL = "http://hub.invalid/tokenizer.json"


def led_to(*errors: BaseException, how: str = "cause") -> BaseException:
    """The last of some errors, each raised because of the one before."""
    for one, following in itertools.pairwise(errors):
        setattr(following, f"__{how}__", one)
    return errors[-1]


def answered(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("hunter2", response=response)


def answered_urllib(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError(URL, status, "hunter2", Message(), io.BytesIO())


def answered_httpx(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", URL)
    response = httpx.Response(status, request=request)
    return httpx.HTTPStatusError("hunter2", request=request, response=response)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        ConnectionResetError(),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        TimeoutError(),
        socket.timeout("timed out"),  # noqa: UP041  # as libraries spell it
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),  # DNS may come back
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ssl.SSLError("The read operation timed out"),
        urllib.error.URLError("unreachable"),
        requests.ConnectionError("hunter2"),
        requests.ReadTimeout(),
        ImportError("libblas.so: failed to map segment from shared object", name="_ufuncs"),
        ImportError("libblas.so: cannot open shared object file: Too many open files"),
        OSError("libgomp.so: cannot create shared object descriptor: Cannot allocate memory"),
        *(answered(status) for status in (408, 429, 500, 503)),
        answered_urllib(502),
        answered_httpx(503),
        led_to(ConnectionResetError(), httpx.ConnectError("hunter2")),
        led_to(OSError(errno.ENOSPC, "full"), ValueError("no model"), RuntimeError("nor that")),
        led_to(requests.ConnectionError(), OSError("cannot load the tokenizer"), how="context"),
        led_to(TimeoutError(), FileNotFoundError(errno.ENOENT, "not in the cache")),
    ],
    ids=repr,
)
def test_what_may_pass_is_found_wherever_it_is(error: BaseException) -> None:
    assert passing_fault(error) is not None
    assert passing_fault(led_to(error, RuntimeError(), how="context")) is not None
    assert "hunter2" not in name_of(passing_fault(error) or error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("hunter2"),
        SystemExit(1),
        ImportError("no module named 'lightgbm'", name="lightgbm"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        IsADirectoryError(errno.EISDIR, "Is a directory"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.ENOEXEC, "Exec format error"),
        OSError(errno.ENOTSUP, "Operation not supported"),
        OSError(errno.EOPNOTSUPP, "Operation not supported"),
        OSError(errno.ENOSYS, "Function not implemented"),
        OSError("libgomp.so.1: cannot open shared object file"),  # as ctypes says it
        ImportError("libgomp.so.1: cannot allocate memory in static TLS block", name="sklearn"),
        OSError("Unable to open file (file signature not found)"),  # as h5py does
        gzip.BadGzipFile("not a gzipped file"),
        io.UnsupportedOperation("not readable"),
        requests.exceptions.MissingSchema("no scheme supplied"),
        *(answered(status) for status in (401, 403, 404)),
        answered_urllib(404),
        answered_httpx(404),
        led_to(FileNotFoundError(errno.ENOENT, "no"), ValueError("no"), RuntimeError("no")),
    ],
    ids=repr,
)
def test_what_is_the_models_own_stays_so(error: BaseException) -> None:
    assert passing_fault(error) is None


def test_errors_that_lead_to_each_other_end() -> None:
    one, other = RuntimeError(), RuntimeError()
    one.__context__, other.__context__ = other, one
    assert passing_fault(one) is None


def test_a_fault_is_named_without_what_it_says() -> None:
    assert name_of(OSError(errno.ENOSPC, "hunter2")) == "OSError (No space left on device)"
    assert name_of(requests.ConnectionError("hunter2")) == "ConnectionError"
    assert name_of(ssl.SSLEOFError(8, "hunter2")) == "SSLEOFError", "its 8 is not the system's"
    linked = ImportError("/home/hunter2/libblas.so: failed to map segment from shared object")
    assert name_of(linked) == "ImportError (no memory or descriptor to link a library)"
