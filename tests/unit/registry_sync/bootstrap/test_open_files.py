"""The limit of open files against the connections of both listeners and the work beside them."""

import resource

import pytest
from structlog.testing import capture_logs

from registry_sync import bootstrap
from registry_sync.operations.listeners import (
    FILES_OF_WORK,
    LOCAL_LIMITS,
    TCP_LIMITS,
    ListenerLimits,
)

ALL = ListenerLimits()


def files_of(limits: ListenerLimits) -> int:
    """What a listener that is full has open: as many again are told that there are too many."""
    return 2 * limits.tcp.most + 2 * limits.local.most


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [(1024, 1_000_000, 4096), (1024, resource.RLIM_INFINITY, 4096), (256, 2048, 2048)],
)
def test_the_limit_is_raised_and_takes_all_connections_beside_the_work(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: made.append(limits))
    with capture_logs() as logs:
        limits = bootstrap._with_room_for_work(ALL)
    assert made == [(raised, hard)]
    assert [one["event"] for one in logs] == (["files.limited"] if raised < 4096 else [])
    assert limits == ALL
    assert files_of(limits) + FILES_OF_WORK <= raised


def test_a_limit_that_is_higher_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, 65_536))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it is lowered"))
    assert bootstrap._with_room_for_work(ALL) == ALL


@pytest.mark.parametrize("hard", [FILES_OF_WORK + 20, FILES_OF_WORK + 96, 680])
def test_there_are_fewer_connections_where_they_do_not_fit_beside_the_work(
    monkeypatch: pytest.MonkeyPatch, hard: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with capture_logs() as logs:
        limits = bootstrap._with_room_for_work(ALL)
    assert files_of(limits) + FILES_OF_WORK <= hard
    assert (limits.tcp.most, limits.local.most) < (TCP_LIMITS.most, LOCAL_LIMITS.most)
    assert logs[-1] == {
        "event": "connections.limited",
        "log_level": "warning",
        "tcp": limits.tcp.most,
        "local": limits.local.most,
    }


def test_operators_have_a_few_however_low_the_limit_is() -> None:
    limits = ALL.within(64)
    assert (limits.tcp.most, limits.local.most) == (4, 4)
    assert limits.local.idle_s == LOCAL_LIMITS.idle_s
