"""The pools of the control plane, and at which priority they work."""

import os
from collections.abc import Iterator

import pytest

from registry_sync.system.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    pools = Threads()
    yield pools
    assert pools.close(timeout_s=20)


def nice() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, 0)


async def test_bytes_are_moved_and_environments_built_behind_what_serves(threads: Threads) -> None:
    lower = min(19, nice() + 10)
    for behind in (threads.fetching, threads.comparing, threads.building):
        assert await behind(nice) == lower
    assert await threads.registry(nice) == await threads.ledger(nice) == nice()
