"""The limit of open files against the number of connections."""

import resource

import pytest

from gateway import __main__ as process
from gateway.errors import StartError
from gateway.settings import GatewaySettings

BESIDE = 128 + 8 * 8


@pytest.fixture
def limits(monkeypatch):
    """Put other limits in place of this process's; return those that are set."""
    now = {"limits": (0, 0)}

    def set_limits(_, limits):
        now["limits"] = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: now["limits"])
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    return now


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 1_000_000, 10_000 + BESIDE),
        (1024, resource.RLIM_INFINITY, 10_000 + BESIDE),
        (50_000, 1_000_000, 50_000),
    ],
)
def test_the_limit_is_raised_as_far_as_connections_need_it(limits, soft, hard, raised):
    limits["limits"] = (soft, hard)
    settings = GatewaySettings(max_resident=8)
    assert process._with_room_for_connections(settings) == settings
    assert limits["limits"] == (raised, hard)


def test_fewer_connections_than_by_default_where_there_is_no_room(limits):
    limits["limits"] = (1024, 4096)
    settings = process._with_room_for_connections(GatewaySettings(max_resident=8))
    assert settings.max_connections == 4096 - BESIDE
    assert limits["limits"] == (4096, 4096)


def test_a_number_that_was_set_is_a_number_that_is_kept(limits):
    limits["limits"] = (1024, 4096)
    with pytest.raises(StartError, match=f"ulimit -Hn.*{4096 - BESIDE} or less"):
        process._with_room_for_connections(GatewaySettings(max_resident=8, max_connections=5000))
