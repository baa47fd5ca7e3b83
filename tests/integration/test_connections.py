"""The public listener's connections against callers that are slow, many, large or impolite."""

import asyncio
import contextlib
import json
import re
import socket
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.http.predict.app import Predictions
from gateway.observability.metrics import Telemetry
from gateway.serving.admission import Admission
from gateway.system.http1.asgi import AsgiService
from gateway.system.http1.connections import ConnectionLimits, Connections
from gateway.system.http1.exchange import Exchange
from gateway.system.http1.head import MAX_HEAD_BYTES
from gateway.system.http1.refusals import BodyTooLargeError
from gateway.system.http1.server import Server
from tests.unit.gateway.http.predict.test_app import FakeDispatcher

pytestmark = pytest.mark.integration

WHOLE = b"POST /whole HTTP/1.1\r\nhost: g\r\ncontent-length: 4\r\n\r\nbody"
OK = (200, b"content-length: 2\r\n", b"ok")
GET = b"GET / HTTP/1.1\r\nhost: g\r\n\r\n"
LARGE = 16 * 1024 * 1024
SOON_S = 20.0
LIMITS = ConnectionLimits(most=20, idle_s=60, head_s=60, read_s=60)


@dataclass
class World:
    """A server of an application that answers ``/``, ``/large``, and ``/slow`` when it may."""

    limits: ConnectionLimits
    drain_timeout_s: float = 60
    answers: Any = None
    service: Any = None
    body_timeout_s: float = 60
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    expected: int = 0
    refused: list[Exception] = field(default_factory=list)
    taken: list[Exchange] = field(default_factory=list)
    callers: list["Caller"] = field(default_factory=list)

    def __post_init__(self):
        self.asgi = AsgiService(
            self.app, max_body_bytes=2 * LARGE, body_timeout_s=self.body_timeout_s
        )

    async def app(self, scope, receive, send):
        self.begun += 1
        if self.answers is not None:
            await self.answers(scope, receive, send)
            return
        if scope["path"] == "/slow":
            await self.may_answer.wait()
        body = b"x" * (LARGE if scope["path"] == "/large" else 5)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def expect(self, exchange, length):
        self.expected += 1
        return self.asgi.expect(exchange, length)

    def begin(self, exchange):
        """Take what is for ``/whole``, answered by the test, and for ``/at-once``."""
        if exchange.url == b"/at-once":
            exchange.answer(*OK)
        elif exchange.url == b"/whole":
            self.taken.append(exchange)
        else:
            self.asgi.begin(exchange)

    def refuse(self, exchange, error):
        self.refused.append(error)
        self.asgi.refuse(exchange, error)

    def end(self):
        self.asgi.end()

    async def __aenter__(self):
        self.connections = Connections(self.limits)
        self.server = Server(
            self.service or self, self.connections, drain_timeout_s=self.drain_timeout_s
        )
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.serving = asyncio.create_task(self.server.serve(sockets=[self.socket]))
        return self

    async def __aexit__(self, *_):
        self.server.stop(at_once=True)
        self.may_answer.set()
        await self.serving
        assert not self.connections.open, "the end leaves none"
        for caller in self.callers:
            caller.writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await caller.writer.wait_closed()

    async def until(self, condition):
        async with asyncio.timeout(SOON_S):
            while not condition():  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)

    async def call(self, data=b"", *, limit=2**16):
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit))
        caller.writer.write(data)
        self.callers.append(caller)
        return caller


@dataclass
class Caller:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self):
        """Read one answer: its status, headers as text, and body."""
        async with asyncio.timeout(SOON_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head)
            body = await self.reader.readexactly(int(length[1]) if length else 0)
        return int(head.split()[1]), head.lower(), body

    async def ended(self):
        """Wait until the server has closed the connection; return what came before."""
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()

    async def refused(self):
        """Read a refusal, and see the connection end; return status and code."""
        status, head, body = await self.answer()
        assert "connection: close" in head
        assert "application/problem+json" in head
        assert await self.ended() in (b"", None)
        return status, json.loads(body)["code"]


@pytest.fixture
async def world():
    async with World(LIMITS) as world:
        yield world


def limits(**changes):
    return ConnectionLimits(**{"most": 20, "idle_s": 60, "head_s": 60, "read_s": 60} | changes)


async def test_a_head_that_does_not_come_is_not_waited_for():
    async def dribbles(world, before, pieces):
        caller = await world.call(before)
        if before:
            assert (await caller.answer())[0] == 200
        for piece in pieces:
            caller.writer.write(piece)
            await asyncio.sleep(0.1)
        assert await caller.refused() == (408, "head_timeout")

    async with World(limits(head_s=0.3)) as world:
        slow = [[b"GET / HT"], [b"GET / HTTP/1.1\r\nhost: g\r\n", b"a: b\r\n"], [b"\r\n", b"G"]]
        calls = [dribbles(world, before, one) for before in (b"", GET) for one in slow]
        await asyncio.gather(*calls)


async def test_a_head_that_is_sent_ahead_and_does_not_come_is_not_waited_for():
    async with World(limits(head_s=0.3)) as world:
        for first in (b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n", WHOLE):
            caller = await world.call(first + b"GET / HT")
            await world.until(lambda: world.begun or world.taken)
            await asyncio.sleep(0.5)
            world.may_answer.set()
            if world.taken:
                world.taken[0].answer(*OK)
            assert (await caller.answer())[0] == 200
            assert await caller.refused() == (408, "head_timeout")
            world.begun = 0


EARLY = b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 60000\r\n\r\n"
"""A request that may be refused before its body comes."""


class Refusing(World):
    """A world that refuses every body that does not come with its head."""

    def expect(self, exchange, length):
        raise BodyTooLargeError("too large")


async def test_the_rest_of_a_small_body_that_was_refused_is_no_head():
    async with Refusing(limits(head_s=0.3)) as world:
        caller = await world.call(EARLY.replace(b"60000", b"5"))
        status, head, _ = await caller.answer()
        assert (status, "connection: close" in head) == (413, False)
        for piece in (b"he", b"llo"):
            caller.writer.write(piece)
            await asyncio.sleep(0.6)
        caller.writer.write(GET)
        assert (await caller.answer())[0] == 200


@pytest.mark.parametrize("framing", [b"content-length: 70000", b"transfer-encoding: chunked"])
async def test_the_rest_of_a_large_body_that_was_refused_is_heard_out(framing):
    async with Refusing(LIMITS) as world:
        caller = await world.call(EARLY.replace(b"content-length: 60000", framing))
        status, head, _ = await caller.answer()
        assert (status, "connection: close" in head) == (413, True)
        caller.writer.write(b"x" * 60_000)
        await caller.writer.drain()
        caller.writer.write(GET * 1000)
        await caller.ended()
        assert world.begun == 0


@pytest.mark.parametrize(("before", "piece"), [(EARLY, b"x"), (GET, b"\r\n"), (b"", b"\r\n")])
async def test_what_is_no_request_does_not_keep_a_connection(before, piece):
    async with Refusing(limits(idle_s=0.5)) as world:
        caller = await world.call(before)
        if before:
            assert (await caller.answer())[0] in (200, 413)
        await world.until(lambda: world.connections.open)
        async with asyncio.timeout(SOON_S):
            while world.connections.open:
                caller.writer.write(piece)
                await asyncio.sleep(0.02)


async def test_a_connection_on_which_nothing_is_sent_ends():
    async with World(limits(idle_s=0.3)) as world:
        silent, served = await world.call(), await world.call(GET)
        assert (await served.answer())[0] == 200
        assert await silent.ended() == b""
        assert await served.ended() == b""
        assert not world.connections.open


async def test_a_slow_body_and_a_slow_answer_are_no_slow_head():
    async with World(limits(head_s=0.2, idle_s=0.2)) as world:
        slow = await world.call(b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n")
        body = await world.call(b"POST /body HTTP/1.1\r\nhost: g\r\ncontent-length: 4\r\n\r\n")
        for piece in (b"a", b"b", b"c", b"d"):
            await asyncio.sleep(0.15)
            body.writer.write(piece)
        assert (await body.answer())[0] == 200
        world.may_answer.set()
        assert (await slow.answer())[0] == 200


async def test_a_large_head_within_the_limit_and_large_bodies_are_served(world):
    caller = await world.call()
    head = b"GET / HTTP/1.1\r\nhost: g\r\na: " + b"x" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"
    body = b"POST /body HTTP/1.1\r\nhost: g\r\ncontent-length: 500000\r\n\r\n" + b"x" * 500_000
    for request in (head, body, body + head, GET):
        caller.writer.write(request)
    for _ in range(5):
        assert (await caller.answer())[0] == 200


async def test_what_is_no_http_is_refused(world):
    for what in (b"\x16\x03\x01\x02\x00\x01\x00", b"nonsense\r\n\r\n", b"GET  / X\r\n"):
        assert await (await world.call(what)).refused() == (400, "invalid_http")


async def test_nonsense_behind_a_request_does_not_cost_it_its_answer(world):
    slow = b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n"
    caller = await world.call(slow + GET + b"nonsense\r\n\r\n")
    await world.until(lambda: world.begun == 1)
    world.may_answer.set()
    assert [(await caller.answer())[0] for _ in range(2)] == [200, 200]
    assert await caller.refused() == (400, "invalid_http")


async def test_requests_that_are_sent_ahead_are_answered_in_order_however_many(world):
    many = 3000
    greedy = await world.call(b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n" + GET * many)
    await world.until(lambda: world.begun == 1)
    other = await world.call(GET)
    assert (await other.answer())[0] == 200
    world.may_answer.set()
    for number in range(many + 1):
        assert (await greedy.answer())[0] == 200, number
        if number == 10:  # others have their turn meanwhile
            other.writer.write(GET)
            assert (await other.answer())[0] == 200
            assert world.begun < many
    greedy.writer.write(GET)
    assert (await greedy.answer())[0] == 200


async def test_connections_beyond_the_limit_are_told_so_and_others_go_on():
    async with World(limits(most=3)) as world:
        inside = [await world.call() for _ in range(3)]
        await world.until(lambda: len(world.connections.open) == 3)
        for data in (b"", GET, b"x" * 100_000):
            beyond = await world.call(data)
            assert await beyond.refused() == (503, "too_many_connections")
        for caller in inside:
            caller.writer.write(GET)
            assert (await caller.answer())[0] == 200
        inside[0].writer.close()
        await world.until(lambda: len(world.connections.open) == 2)
        assert (await (await world.call(GET)).answer())[0] == 200


async def test_a_flood_of_connections_leaves_none():
    async with World(limits(most=5)) as world:
        for _ in range(3):
            callers = [await world.call() for _ in range(300)]
            for caller in callers:
                caller.writer.transport.abort()
        await world.until(lambda: not world.connections.open)
        assert (await (await world.call(GET)).answer())[0] == 200


@pytest.mark.parametrize("closing", [False, True])
async def test_a_caller_who_does_not_read_is_left(closing):
    async with World(limits(read_s=0.3)) as world:
        last = b"connection: close\r\n" if closing else b""
        caller = await world.call(
            b"GET /large HTTP/1.1\r\nhost: g\r\n" + last + b"\r\n", limit=1024
        )
        await world.until(lambda: world.begun == 1)
        await world.until(lambda: not world.connections.open)
        caller.writer.transport.abort()


async def test_a_slow_but_steady_reader_gets_all_of_it():
    async with World(limits(read_s=2.0)) as world:
        caller = await world.call(b"GET /large HTTP/1.1\r\nhost: g\r\n\r\n", limit=1024)
        await caller.reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < LARGE:  # 128 pieces: over the time for nothing
            got += len(await caller.reader.readexactly(LARGE // 128))
            await asyncio.sleep(0.02)


async def stopping(world):
    world.server.stop()
    world.connections.drain()
    await asyncio.sleep(0)


async def test_the_end_answers_what_is_under_way_and_who_comes_then(world):
    slow = [await world.call(b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n") for _ in range(3)]
    idle = await world.call(GET)
    await idle.answer()
    await world.until(lambda: world.begun == 4)
    await stopping(world)
    idle.writer.write(GET)  # on its way as the end began
    status, head, _ = await idle.answer()
    assert (status, "connection: close" in head) == (200, True)
    silent = await world.call()
    assert await silent.ended() == b""
    newcomer = await world.call(GET)
    assert (await newcomer.answer())[0] == 200
    assert await newcomer.ended() == b""
    assert not world.serving.done()
    world.may_answer.set()
    for caller in slow:
        status, head, _ = await caller.answer()
        assert (status, "connection: close" in head) == (200, True)
        assert await caller.ended() == b""
    async with asyncio.timeout(SOON_S):
        await asyncio.shield(world.serving)


async def test_a_connection_that_was_just_made_does_not_idle_yet(world):
    caller = await world.call()
    await world.until(lambda: world.connections.open)
    world.connections.close_idle(SOON_S)
    caller.writer.write(GET)  # on its way as others were closed
    assert (await caller.answer())[0] == 200
    world.connections.close_idle(SOON_S)
    caller.writer.write(GET)
    assert (await caller.answer())[0] == 200
    world.connections.close_idle()
    assert await caller.ended() == b""


async def test_callers_who_come_again_and_again_do_not_hold_up_the_end(world):
    refused = 0

    async def come_again():
        nonlocal refused
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                caller = await world.call(GET)
                await caller.answer()
                caller.writer.transport.abort()
                refused += 1

    slow = await world.call(b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n")
    await world.until(lambda: world.begun == 1)
    coming = [asyncio.create_task(come_again()) for _ in range(10)]
    await stopping(world)
    await world.until(lambda: refused > 50)
    world.may_answer.set()
    assert (await slow.answer())[0] == 200
    async with asyncio.timeout(5):
        await asyncio.shield(world.serving)
    await asyncio.gather(*coming)


@pytest.mark.parametrize("asked_again", [False, True])
async def test_nobody_holds_up_the_end(asked_again):
    drain_timeout_s = 60.0 if asked_again else 0.8
    async with World(LIMITS, drain_timeout_s=drain_timeout_s) as world:
        slow = await world.call(b"GET /slow HTTP/1.1\r\nhost: g\r\n\r\n")
        body = await world.call(b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 9\r\n\r\nx")
        await world.call(b"GET /large HTTP/1.1\r\nhost: g\r\n\r\n", limit=1024)
        head = await world.call(b"GET / HT")
        await world.until(lambda: sum(one.busy for one in world.connections.open) == 4)
        await stopping(world)
        await asyncio.sleep(0.7)
        assert not world.serving.done()
        if asked_again:
            world.server.stop(at_once=True)
        assert await head.refused() == (503, "draining")
        assert (await slow.answer())[0] == 503
        assert (await body.answer())[0] == 503
        async with asyncio.timeout(SOON_S):
            await asyncio.shield(world.serving)


# --- requests that come in one piece --------------------------------------------------------------


async def test_a_request_that_comes_whole_is_offered_and_answered(world):
    caller = await world.call(WHOLE)
    for number in (1, 2):
        await world.until(lambda number=number: len(world.taken) == number)
        exchange = world.taken[-1]
        assert exchange.body == b"body"
        assert (b"content-length", b"4") in exchange.headers
        assert all(one.busy for one in world.connections.open)
        exchange.answer(*OK)
        status, head, body = await caller.answer()
        assert (status, body) == (200, b"ok")
        assert "date: " in head
        assert "connection: close" not in head
        assert not any(one.busy for one in world.connections.open)
        caller.writer.write(WHOLE)
    assert world.begun == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [WHOLE[:-1], WHOLE[-1:]],
        [WHOLE[:-4], WHOLE[-4:]],
        [WHOLE],
        [WHOLE.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n")],
        [bytes([byte]) for byte in WHOLE.replace(b"/whole", b"/")],
    ],
)
async def test_a_request_reaches_the_application_with_its_body_however_it_comes(pieces):
    received = []

    async def app(scope, receive, send):
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        received.append(body + message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with World(LIMITS, answers=app) as world:
        caller = await world.call()
        for piece in pieces:
            caller.writer.write(piece.replace(b"/whole", b"/"))
            await asyncio.sleep(0.01)
        await world.until(lambda: received)
        assert received == [b"body"]


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
async def test_a_connection_that_idles_keeps_nothing_of_its_last_request():
    """Looked at by what is allocated: whoever refers to it, keeps it."""
    size, heard, count = 40_000, 20_000, 20
    head = b"POST /whole HTTP/1.1\r\nhost: g\r\na: %b\r\ncontent-length: %d\r\n\r\n" % (
        b"h" * heard,
        size,
    )

    def held(before):
        return (tracemalloc.get_traced_memory()[0] - before) / (count * (size + heard))

    async with World(limits(most=count)) as world:
        callers = [await world.call() for _ in range(count)]
        await world.until(lambda: len(world.connections.open) == count)
        before, _ = tracemalloc.get_traced_memory()
        for number, caller in enumerate(callers, 1):
            caller.writer.write(head + b"b" * size)
            await world.until(lambda number=number: len(world.taken) == number)
        assert held(before) > 0.9, "while they wait for their answers"
        for exchange, caller in zip(world.taken, callers, strict=True):
            exchange.answer(*OK)
            assert (await caller.answer())[2] == b"ok"
        assert len(world.connections.open) == count
        assert held(before) < 0.2


# --- predictions by callers who are slow ----------------------------------------------------------

PLACES = 4
HEAD = b"POST /models/%b/predict HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
LENGTH = HEAD + b"content-length: 4\r\n\r\n"
PIECES = HEAD + b"transfer-encoding: chunked\r\n\r\n"


class Models(FakeDispatcher):
    """Whoever asks the model ``large`` gets a large answer."""

    async def predict(self, call):
        reply = await super().predict(call)
        return reply if call.model != "large" else reply._replace(body=b"x" * LARGE)


def predicting():
    """Return the bounds and a world of predictions within them: few places, many bytes."""
    admission = Admission(max_in_flight=PLACES, max_in_flight_bytes=1 << 30)
    following = AsgiService(World(LIMITS).app, max_body_bytes=1000, body_timeout_s=60)
    dispatcher: Any = Models()
    service = Predictions(following, dispatcher, Telemetry(), admission)
    return admission, World(limits(most=100), service=service)


async def is_served(world):
    """See that another caller is, in all ways that a request may come."""
    for pieces in (
        [LENGTH % b"m" + b"body"],
        [LENGTH % b"m", b"body"],
        [LENGTH % b"m", b"bo", b"dy"],
    ):
        caller = await world.call()
        for piece in pieces:
            caller.writer.write(piece)
            await asyncio.sleep(0.02)
        assert (await caller.answer())[0] == 200


async def test_slow_readers_of_answers_take_no_place_of_others():
    admission, world = predicting()
    async with world:
        for _ in range(PLACES):
            await world.call(LENGTH % b"large" + b"body", limit=1024)
            await world.call(PIECES % b"large" + b"1\r\nb\r\n0\r\n\r\n", limit=1024)
        await world.until(lambda: admission.in_flight_bytes >= 2 * PLACES * LARGE)
        assert admission.in_flight == 0
        await is_served(world)
        for caller in world.callers:
            caller.writer.transport.abort()
        await world.until(lambda: not admission.in_flight_bytes)
