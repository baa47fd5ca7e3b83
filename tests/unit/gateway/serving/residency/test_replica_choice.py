"""The choice of a replica for a request."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

from gateway.serving.replica.service_rate import ServiceRate
from gateway.serving.residency.replica_choice import choose

ANY = 1 << 40


def one(leases: int, expected_service_s: float, *, room_bytes: int = ANY) -> Any:
    """A replica that is as fast as this, has been busy until now, and takes bodies of this size."""
    replica = SimpleNamespace(
        expected_service_s=lambda now: expected_service_s,
        decayed_service_s=lambda now: expected_service_s,
        has_room=lambda body_bytes: body_bytes <= room_bytes,
    )
    return SimpleNamespace(leases=leases, replica=replica)


class Server:
    """A replica that takes so many seconds for each answer, one after the other."""

    def __init__(self, answer_s: float) -> None:
        self.answer_s = answer_s
        self.paced = ServiceRate()
        self.due: list[float] = []
        self.replica = self

    @property
    def leases(self) -> int:
        return len(self.due)

    def expected_service_s(self, now: float) -> float:
        return self.paced.seconds_per_answer

    def decayed_service_s(self, now: float) -> float:
        return self.paced.decayed_s(now)

    def has_room(self, body_bytes: int) -> bool:
        return True

    def take(self, now: float, answer_s: float | None = None) -> None:
        if not self.due:
            self.paced.began(now)
        self.due.append(max([now, *self.due]) + (answer_s or self.answer_s))

    def answer(self, now: float) -> None:
        while self.due and self.due[0] <= now:
            self.paced.answered(self.due.pop(0))


def traffic(
    servers: list[Server], *, from_s: float, to_s: float, every_s: float, together: int = 1
) -> Counter[int]:
    """Send so many requests every so often; return how many each server has been given."""
    given: Counter[int] = Counter()
    for number in range(int((to_s - from_s) / every_s)):
        now = from_s + number // together * together * every_s
        for server in servers:
            server.answer(now)
        chosen: Any = choose(servers, 1, now)  # type: ignore[arg-type]  # a stand-in
        given[servers.index(chosen)] += 1
        chosen.take(now)
    return given


def after_one_slow_answer(then_s: float) -> list[Server]:
    """Two that took 5 ms; the first has had one of 5 s since, and takes ``then_s`` from now on."""
    servers = [Server(0.005), Server(0.005)]
    for server in servers:
        server.take(0.0)
        server.answer(0.005)
    servers[0].take(0.1, answer_s=5.0)
    servers[0].answer(5.1)
    servers[0].answer_s = then_s
    return servers


def test_slow_answer_avoids_a_replica_for_seconds_only():
    servers = after_one_slow_answer(0.005)
    assert traffic(servers, from_s=5.2, to_s=7.2, every_s=0.006, together=2)[0] == 0, (
        "it was slow just now"
    )
    traffic(servers, from_s=7.2, to_s=20.2, every_s=0.006, together=2)
    given = traffic(servers, from_s=20.2, to_s=25.2, every_s=0.006, together=2)
    assert min(given[0], given[1]) > 0.4 * given.total(), given


def test_replica_that_stays_slow_is_tried_rarely():
    servers = after_one_slow_answer(5.0)
    given = traffic(servers, from_s=5.2, to_s=65.2, every_s=0.008, together=2)
    assert 1 <= given[0] <= 6, given


def test_slow_replica_is_not_tried_while_a_fast_one_is_idle():
    servers = after_one_slow_answer(5.0)
    assert traffic(servers, from_s=5.2, to_s=600.0, every_s=0.1)[0] == 0


def test_replica_with_the_least_expected_wait_is_chosen() -> None:
    fast, slow = one(3, 1.0), one(1, 1.9)
    assert choose([fast, slow], 0, 0.0) is slow
    assert choose([fast, one(1, 2.1)], 0, 0.0) is fast


def test_full_replica_is_not_chosen_beside_one_with_room() -> None:
    full, free = one(256, 0.001, room_bytes=-1), one(3, 0.1)
    assert choose([full, free], 0, 0.0) is free
    assert choose([full], 0, 0.0) is full


def test_body_goes_to_a_replica_with_room_for_it() -> None:
    tight, roomy = one(4, 0.001, room_bytes=1000), one(6, 0.001)
    assert choose([tight, roomy], 1000, 0.0) is tight
    assert choose([tight, roomy], 1001, 0.0) is roomy
