"""A call of the system that fails where nobody expects it costs what it was for, and no more."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_sync.domain import HoldsSnapshot
from registry_sync.errors import LedgerError
from registry_sync.ledger.holds_file import DamagedHoldsError, HoldsFile
from tests.fakes.nodes import A, M, NodeInMemory, idle, ledger_answers
from tests.fakes.operating import asking, decide
from tests.fakes.waiting import becomes

ALIAS = {"model": M, "alias": A}
PASSES = 3

CALLS: dict[str, tuple[object, str, Exception]] = {
    "open": (os, "open", OSError(errno.EMFILE, "Too many open files")),
    "write": (os, "fsync", OSError(errno.EIO, "Input/output error")),
    "rename": (os, "replace", OSError(errno.EIO, "Input/output error")),
    "mkdir": (os, "mkdir", OSError(errno.ENOSPC, "No space left on device")),
    "listdir": (os, "listdir", OSError(errno.EMFILE, "Too many open files")),
    "thread": (threading.Thread, "start", RuntimeError("can't start new thread")),
}


def failing(error: Exception) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize("call", CALLS)
async def test_the_control_plane_goes_on_when_it_works_again(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 3)
    async with node.at_rest(1) as spine, asking(node, spine) as client:
        owner, name, error = CALLS[call]
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, failing(error))
            node.registry.point(M, A, 2)
            node.gateway.want(M, 3)
            await spine.poll()
            for route in ("/freeze", "/unfreeze"):
                answer = await client.post(route)
                assert answer.status_code == 202, answer.text
            for _ in range(PASSES):
                await spine.next_decision()
        await node.serves(2)
        await ledger_answers(spine)
        await idle(spine)
        assert spine.journal.backlog() is None
        whats = [one.what for one in spine.ledger.decisions_of(M)]
        assert sorted(whats) == ["freeze", "unfreeze"]
        assert (await decide(client, "/rollback", **ALIAS))["outcome"] == "active"


async def test_the_gateway_is_followed_after_a_call_that_failed_unexpectedly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    async with node.following(1) as spine:
        with monkeypatch.context() as broken:
            broken.setattr(node.gateway, "observe", failing(MemoryError()))
            spine.observation.suspect("another call failed")
            await becomes(
                lambda: "MemoryError" in str(spine.observation.unreachable), "it cannot be asked"
            )
        await node.promotes(2)
        await node.serves(2)


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HoldsFile(tmp_path / "holds.json")
    file.write(HoldsSnapshot())
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", failing(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(LedgerError, match="cannot be read now") as caught:
            file.read()
    assert not isinstance(caught.value, DamagedHoldsError)
