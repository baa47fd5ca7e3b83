"""The limit of open files against the number of connections."""

import resource
from typing import Any, cast

import pytest

from gateway import __main__ as process
from gateway.settings import GatewaySettings
from gateway.system.http1.connections import ConnectionLimits, Connections, most_open
from gateway.system.node_identity import StartError

BESIDE = 128 + 8 * 8
TURNED_AWAY = 512


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
        (1024, 1_000_000, 10_000 + TURNED_AWAY + BESIDE),
        (1024, resource.RLIM_INFINITY, 10_000 + TURNED_AWAY + BESIDE),
        (50_000, 1_000_000, 50_000),
    ],
)
def test_the_limit_is_raised_as_far_as_connections_need_it(limits, soft, hard, raised):
    limits["limits"] = (soft, hard)
    settings = GatewaySettings(max_resident=8)
    assert process._with_open_files(settings) == settings
    assert limits["limits"] == (raised, hard)


@pytest.mark.parametrize("hard", [BESIDE + 2, 300, 1024, 1215, 1216, 1217, 2048, 4096, 10_000])
def test_refused_connections_have_files_too(limits, hard):
    limits["limits"] = (hard, hard)
    most = process._with_open_files(GatewaySettings(max_resident=8)).max_connections
    assert most_open(most) + BESIDE <= hard < most_open(most + 1) + BESIDE


def test_a_number_that_was_set_is_a_number_that_is_kept(limits):
    limits["limits"] = (1024, 4096)
    with pytest.raises(StartError, match=f"ulimit -Hn.*{4096 - TURNED_AWAY - BESIDE} or less"):
        process._with_open_files(GatewaySettings(max_resident=8, max_connections=5000))


def test_a_limit_below_what_the_workers_need_names_a_setting_that_helps(limits):
    limits["limits"] = (BESIDE + 1, BESIDE + 1)
    with pytest.raises(StartError, match="or lower GATEWAY_MAX_RESIDENT: each worker needs 8"):
        process._with_open_files(GatewaySettings(max_resident=8))
    fewer = process._with_open_files(GatewaySettings(max_resident=4))
    assert fewer.max_connections > 0


def test_a_default_number_of_workers_leaves_most_files_for_connections(limits):
    limits["limits"] = (1024, 1024)
    budget = 16 * 2**30
    assert GatewaySettings(max_resident_bytes=budget).max_resident == 256
    fitting = process._with_open_files(GatewaySettings(max_resident_bytes=budget))
    assert fitting.max_resident == (1024 - 128) // 4 // 8
    assert fitting.max_connections > 256


@pytest.mark.parametrize(("gib", "workers"), [(0.25, 8), (1, 16), (16, 256), (64, 256)])
def test_the_default_number_of_workers_follows_from_the_memory_budget(gib, workers):
    assert GatewaySettings(max_resident_bytes=int(gib * 2**30)).max_resident == workers


class Held:
    """A connection whose caller stays after the refusal."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("most", [3, 600])
def test_no_more_connections_are_held_than_have_files(most):
    connections = Connections(ConnectionLimits(most=most, idle_s=1, head_s=1, read_s=1))
    held = [Held() for _ in range(most_open(most) + 5)]
    refusals = [connections.enter(cast("Any", one)) for one in held]
    assert [refusal is None for refusal in refusals] == [True] * most + [False] * (len(held) - most)
    assert [one.aborted for one in held] == [False] * most_open(most) + [True] * 5
