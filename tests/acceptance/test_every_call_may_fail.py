"""A call into the system fails in a gateway that works: nothing is wrong, and all comes back."""

import errno
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.failing_town import SETTINGS, Town, built
from tests.acceptance.hooks import failing_calls
from tests.acceptance.registry import Registry
from tests.acceptance.scale import FAILING_CALLS
from tests.servers import MlflowServer

FAILS = {
    "fork": errno.EAGAIN,
    "os.fsync": errno.EIO,
    "os.listdir": errno.EMFILE,
    # Up to here in short runs too.
    "thread": errno.EAGAIN,
    "open": errno.EMFILE,
    "os.pipe": errno.EMFILE,
    "os.write": errno.ENOSPC,
    "os.replace": errno.ENOSPC,
    "socket": errno.EMFILE,
    "socket.socketpair": errno.EMFILE,
    "socket.recv": errno.ECONNRESET,
    "socket.sendmsg": errno.EPIPE,
    "socket.connect": errno.ECONNREFUSED,
    "exec": errno.EAGAIN,
    "os.open": errno.EMFILE,
    "os.close": errno.EIO,
    "os.dup": errno.EMFILE,
    "os.read": errno.EIO,
    "os.fdatasync": errno.EIO,
    "os.ftruncate": errno.EIO,
    "os.fstat": errno.EIO,
    "os.rename": errno.EIO,
    "os.link": errno.ENOSPC,
    "os.unlink": errno.EIO,
    "os.stat": errno.EIO,
    "os.lstat": errno.EIO,
    "os.utime": errno.EACCES,
    "os.mkdir": errno.ENOSPC,
    "os.scandir": errno.EMFILE,
    "os.pidfd_open": errno.EMFILE,
    "os.kill": errno.EPERM,
    "os.killpg": errno.EPERM,
    "os.getsid": errno.EPERM,
    "os.set_blocking": errno.EBADF,
    "signal.pidfd_send_signal": errno.EPERM,
}
"""Calls by name, and the error that the system would give. """
TRIED = list(FAILS)[:FAILING_CALLS]
ANEW = {"thread", "os.utime"}
"""Calls of a gateway that has just started: later it has all its threads, and has read what was
proved."""
UNPROVED = {"os.mkdir"}
"""Calls for a version of which nothing was proved yet."""


def _tear(node_dir: Path) -> None:
    """Let a file of changes end in a line that was not written whole."""
    with (node_dir / "catalogue.changes").open("ab") as file:
        file.write(b'\n{"torn')


def _put_a_folder(node_dir: Path) -> None:
    """Let a folder stand where a file of changes belongs."""
    path = node_dir / "catalogue.changes"
    path.unlink(missing_ok=True)
    path.mkdir()


def _leave_a_folder(node_dir: Path) -> None:
    """Let a folder stand where a second name of a file that is often replaced belongs."""
    folder = node_dir / "hot.json.before"
    while True:
        with suppress(FileExistsError):  # that second name, for a moment
            folder.mkdir()
            (folder / "file").touch()
            return


DAMAGED = {"os.ftruncate": _tear, "os.rename": _put_a_folder, "os.scandir": _leave_a_folder}
"""Calls of a gateway that mends a damaged file."""


@dataclass(frozen=True)
class FailingCall:
    """One kind of call, and the file by which the gateway is told that it fails."""

    name: str
    order: Path

    def begin(self) -> None:
        self._write(failing_calls.order(self.name, FAILS[self.name]))

    def end(self) -> None:
        self._write(bytes(failing_calls.SIZE))

    def _write(self, content: bytes) -> None:
        with self.order.open("r+b") as file:
            file.write(content)

    def happened(self) -> int:
        return int(failing_calls.fired(self.order.read_bytes()))


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `FailingCall`."""
    path = tmp_path_factory.mktemp("failing") / "order"
    path.write_bytes(bytes(failing_calls.SIZE))
    return path


@pytest.fixture(scope="module")
def town(make_module_node: NodeMaker, mlflow_registry: MlflowServer, order: Path) -> Iterator[Town]:
    node = make_module_node(gateway=SETTINGS | {"ACCEPTANCE_FAILING": str(order)})
    with built(node, Registry(mlflow_registry.url)) as town:
        yield town


@pytest.mark.parametrize("name", TRIED)
async def test_a_call_that_fails_costs_the_requests_at_hand(
    town: Town, order: Path, name: str
) -> None:
    await town.outlives(
        name,
        FailingCall(name, order),
        anew=name in ANEW,
        unproved=name in UNPROVED,
        damage=DAMAGED.get(name),
    )


def test_each_call_that_the_hook_wraps_is_tried() -> None:
    wrapped = {name for name, _, _ in [*failing_calls.GATEWAY, *failing_calls.FORKSERVER]}
    assert wrapped == set(FAILS)
