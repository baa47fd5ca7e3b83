"""The prediction routes against a dispatcher of a fake: paths, headers, limits, errors."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway import errors
from gateway.admission import Admission
from gateway.dispatch import Answer
from gateway.http.arrival import BodyLimits
from gateway.http.exchange import Exchange
from gateway.http.predict import PredictApp
from gateway.http.problems import MEDIA_TYPE, STATUS
from gateway.model_ref import Selector, SelectorKind
from gateway.replica import WorkerReply
from gateway.routing import Route
from gateway.telemetry import Telemetry

DIGEST = "sha256:" + "a" * 64
JSON = {"content-type": "application/json"}


class FakeDispatcher:
    """Answers everything with version 3, or raises what it was told to."""

    def __init__(self):
        self.calls, self.error, self.cancelled = [], None, asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.draining = False

    def refuse_when_draining(self):
        if self.draining:
            raise errors.DrainingError("the end", retry_after_s=1)

    def resolve(self, call):
        return Route(call.model, 3, DIGEST, 9)

    async def predict(self, call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Answer(self.resolve(call), WorkerReply(b"{}", "application/json", 1, 0.1, 0.2, 1))

    def begin(self, call, told):
        call.pending = asyncio.ensure_future(self._reply(call))
        call.pending.add_done_callback(told)

    async def _reply(self, call):
        answer = await self.predict(call)
        call.route = answer.route
        return answer.reply


class FakeLine:
    """A connection whose caller reads when it is told to."""

    def __init__(self):
        self.written, self.done, self.read = b"", asyncio.Event(), asyncio.Event()
        self.read.set()

    def common_headers(self):
        return b"date: today\r\n"

    def write(self, data):
        self.written += data

    @property
    def is_read(self):
        return self.read.is_set()

    async def until_read(self):
        await self.read.wait()

    def answered(self, exchange):
        self.done.set()

    @property
    def status(self):
        return int(self.written.split()[1]) if self.written else None


def _parts(line):
    return line.partition(": ")


class WholeTransport(httpx.ASGITransport):
    """Offers what comes whole to the application as the listener does."""

    app: Any

    async def handle_async_request(self, request):
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        if "transfer-encoding" in request.headers:
            return await super().handle_async_request(request)
        line, body = FakeLine(), await request.aread()
        exchange = Exchange(line, request.url.raw_path, headers, body, keep_alive=True)
        if request.method != "POST" or not self.app.take(exchange):
            return await super().handle_async_request(request)
        async with asyncio.timeout(10):
            await line.done.wait()
        assert exchange.response_complete
        head, _, content = line.written.partition(b"\r\n\r\n")
        pairs = [(name, value) for name, _, value in map(_parts, head.decode().split("\r\n")[1:])]
        return httpx.Response(line.status, headers=pairs, content=content)


async def elsewhere(scope, receive, send):
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def dispatcher():
    return FakeDispatcher()


@pytest.fixture
def admission():
    return Admission(max_in_flight=3, max_in_flight_bytes=150_000)


@pytest.fixture
def app(dispatcher, admission):
    limits = BodyLimits(max_bytes=100_000, timeout_s=0.2)
    return PredictApp(elsewhere, dispatcher, Telemetry(), admission, limits)


@pytest.fixture(autouse=True)
def nothing_is_kept(admission):
    """Whatever became of its requests, the gateway holds nothing of them afterwards."""
    yield
    assert (admission.in_flight, admission.in_flight_bytes, admission.held_bytes) == (0, 0, 0)


@pytest.fixture(params=[WholeTransport, httpx.ASGITransport], ids=["whole", "in pieces"])
async def client(request, app):
    transport = request.param(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        yield client


VERSION, ALIAS = SelectorKind.VERSION, SelectorKind.ALIAS


@pytest.mark.parametrize(
    ("path", "header", "model", "selector", "also"),
    [
        ("/models/m/predict", None, "m", None, None),
        ("/models/m/predict", "3", "m", Selector(VERSION, "3"), None),
        ("/models/m/predict", "champion", "m", Selector(ALIAS, "champion"), None),
        ("/models/m/predict", "@champion", "m", Selector(ALIAS, "champion"), None),
        ("/models/m/predict", "latest", "m", Selector(ALIAS, "latest"), None),
        ("/models/m/versions/3/predict", None, "m", Selector(VERSION, "3"), None),
        ("/models/m/versions/@prod/predict", None, "m", Selector(ALIAS, "prod"), None),
        ("/models/m/versions/%40prod/predict", None, "m", Selector(ALIAS, "prod"), None),
        ("/models/m/versions/@%C3%BCn%C3%AF/predict", None, "m", Selector(ALIAS, "ünï"), None),
        ("/models/m/predict", "ünï".encode(), "m", Selector(ALIAS, "ünï"), None),
        ("/models/m/predict", "@%C3%BCn%C3%AF", "m", Selector(ALIAS, "ünï"), None),
        ("/models/m/predict", " %33 ", "m", Selector(VERSION, "3"), None),
        ("/models/m/versions/3/predict", "4", "m", Selector(VERSION, "3"), Selector(VERSION, "4")),
        ("/models/a%20b%3F%2525/predict", None, "a b?%25", None, None),
        ("/models/%C3%BCml/predict/", None, "üml", None, None),
    ],
)
async def test_who_is_meant(client, dispatcher, path, header, model, selector, also):
    headers = JSON | ({"x-model-version": header} if header else {})
    answer = await client.post(path, content=b"body", headers=headers)
    assert answer.status_code == 200
    call = dispatcher.calls[0]
    assert (call.model, call.selector, call.also, call.body) == (model, selector, also, b"body")


async def test_two_headers_that_name_a_version_are_refused_and_other_pairs_are_not(client):
    two = [("x-model-version", "3"), ("x-model-version", "3")]
    answer = await client.post("/models/m/predict", content=b"x", headers=two)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_selector")
    answer = await client.post("/models/m/predict", content=b"x", headers=[("x-a", "1")] * 2)
    assert answer.status_code == 200


async def test_every_answer_names_who_gave_it(client):
    answer = await client.post("/models/m/predict", content=b"x", headers={"x-request-id": "abc-1"})
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["x-model-digest"] == DIGEST
    assert answer.headers["x-route-generation"] == "9"
    assert answer.headers["x-request-id"] == "abc-1"
    assert "predict;dur=200" in answer.headers["server-timing"]


@pytest.mark.parametrize("given", ["", "with space", "x" * 200])
async def test_an_unusable_request_id_is_replaced(client, given):
    answer = await client.post("/models/m/predict", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] not in ("", given)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models/m/versions/0/predict", {}),
        ("/models/m/versions/a.b/predict", {}),
        ("/models/m/predict", {"x-model-version": "1.0"}),
        ("/models/a%3Ab/predict", {}),
        ("/models/%FF/predict", {}),
    ],
)
async def test_what_cannot_name_a_version_is_a_400(client, dispatcher, path, headers):
    answer = await client.post(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_selector")
    assert dispatcher.calls == []


@pytest.mark.parametrize(
    ("path", "header", "says"),
    [
        ("/models/m/versions/@%FC/predict", None, "it is not UTF-8; percent-encode"),
        ("/models/m/predict", "ünï".encode("latin-1"), "it is not UTF-8; percent-encode"),
        ("/models/m/predict", "u\u0308n".encode(), "NFC"),
        ("/models/m/predict", "🙂".encode(), "letters, digits"),
        ("/models/m/predict", "٣".encode(), "written in 0 to 9"),
    ],
)
async def test_what_is_not_ascii_and_names_nothing_gets_a_sentence(
    client, dispatcher, path, header, says
):
    headers = {} if header is None else {"x-model-version": header}
    problem = (await client.post(path, headers=headers)).json()
    assert (problem["status"], problem["code"]) == (400, "invalid_selector")
    assert says in problem["detail"]
    assert dispatcher.calls == []


async def test_other_routes_go_on_to_the_application(client):
    assert (await client.get("/models/m/predict")).status_code == 299
    assert (await client.post("/models/m")).status_code == 299


WITH_DETAILS = {errors.InvalidInputError, errors.NotFiniteAnswerError}


@pytest.mark.parametrize("error", [one for one in STATUS if one not in WITH_DETAILS])
async def test_every_error_has_its_status_and_shape(client, dispatcher, error):
    dispatcher.error = error("what happened", retry_after_s=1.2)
    answer = await client.post("/models/m/predict")
    body = answer.json()
    assert answer.status_code == body["status"] == STATUS[error]
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["retry-after"] == "2"
    assert (body["code"], body["detail"]) == (error.code, "what happened")
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_an_error_names_the_version_it_came_from_though_the_alias_has_moved_on(
    client, dispatcher
):
    async def predict(call):
        call.route = Route(call.model, 1, DIGEST, 5)
        raise errors.DeadlineExceededError("too late")

    dispatcher.predict = predict
    answer = await client.post("/models/m/predict")
    assert (await client.post("/models/m/versions/3/predict")).headers["x-model-version"] == "1"
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-route-generation"] == "5"


async def test_bad_input_names_row_and_field(client, dispatcher):
    dispatcher.error = errors.InvalidInputError("1 problem", [[2, "age", "not a number"]])
    body = (await client.post("/models/m/predict")).json()
    assert body["errors"] == [{"row": 2, "field": "age", "reason": "not a number"}]


@pytest.mark.parametrize(
    ("error", "level"), [(errors.ModelNotFoundError, "debug"), (errors.WorkerDiedError, "warning")]
)
async def test_what_is_a_callers_fault_is_logged_for_who_looks_for_it(
    client, dispatcher, error, level
):
    dispatcher.error = error("what happened")
    with capture_logs() as logs:
        await client.post("/models/m/predict")
    assert [(one["event"], one["log_level"]) for one in logs] == [("request.refused", level)]


async def test_what_nobody_foresaw_is_a_500_without_its_text(client, dispatcher):
    dispatcher.error = RuntimeError("secret")
    answer = await client.post("/models/m/predict")
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(client, dispatcher, chunked):
    async def pieces():
        for _ in range(11):
            yield b"x" * 10_000

    content = pieces() if chunked else b"x" * 100_001
    answer = await client.post("/models/m/predict", content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert dispatcher.calls == []


async def test_a_body_that_stops_coming_is_a_408(client, dispatcher):
    async def pieces():
        yield b"x"
        await asyncio.Event().wait()

    answer = await client.post("/models/m/predict", content=pieces())
    assert (answer.status_code, answer.json()["code"]) == (408, "body_timeout")


async def test_probabilities_are_asked_for_in_the_query(client, dispatcher):
    await client.post("/models/m/predict?probabilities=true")
    assert dispatcher.calls[0].probabilities is True
    answer = await client.post("/models/m/predict?probabilities=perhaps")
    assert answer.status_code == 422


def whole(app, line, body=b"body"):
    """Offer a request that came whole; return its exchange."""
    exchange = Exchange(line, b"/models/m/predict", [], body, keep_alive=True)
    assert app.take(exchange)
    return exchange


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)


async def test_a_caller_of_a_whole_request_who_hangs_up_cancels_it(app, dispatcher, admission):
    dispatcher.gate.clear()
    line = FakeLine()
    exchange = whole(app, line)
    await until(lambda: dispatcher.calls)
    exchange.disconnected = True
    exchange.end()
    async with asyncio.timeout(10):
        await dispatcher.cancelled.wait()
    await until(lambda: not admission.in_flight)
    assert line.written == b""


async def test_a_whole_request_is_told_when_the_time_for_it_is_over(app, dispatcher):
    dispatcher.gate.clear()
    line = FakeLine()
    exchange = whole(app, line)
    await until(lambda: dispatcher.calls)
    exchange.end()
    await until(line.done.is_set)
    assert line.status == 503
    assert b"connection: close" in line.written


@pytest.mark.parametrize("size", [100_000, 10])
async def test_an_answer_counts_until_a_slow_caller_reads_and_takes_no_place(
    app, dispatcher, admission, size
):
    async def predict(call):
        line.read.clear()
        reply = WorkerReply(b"x" * size, "application/json", 1, 0.1, 0.2, 1)
        return Answer(dispatcher.resolve(call), reply)

    line = FakeLine()
    dispatcher.predict = predict
    exchange = whole(app, line)
    await until(lambda: admission.in_flight_bytes == size)
    assert admission.in_flight == 0
    await asyncio.sleep(0.02)
    assert not line.written, "it has not read what came before"
    assert not exchange.response_complete
    assert (exchange.body, exchange.headers) == (b"", []), "it waits for its answer only"
    line.read.set()
    await until(line.done.is_set)
    assert line.written.endswith(b"x" * size)
    await until(lambda: not admission.in_flight_bytes)


async def test_a_worker_cannot_write_headers(app, dispatcher):
    async def predict(call):
        reply = WorkerReply(b"{}", "a\r\nset-cookie: b", 1, 0.1, 0.2, 1)
        return Answer(dispatcher.resolve(call), reply)

    dispatcher.predict = predict
    line = FakeLine()
    whole(app, line)
    await until(line.done.is_set)
    assert line.status == 503
    assert b"set-cookie" not in line.written


async def test_a_caller_who_hangs_up_cancels_its_prediction(app, dispatcher):
    dispatcher.gate.clear()
    messages = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/models/m/predict",
        "query_string": b"",
        "headers": [],
    }
    async with asyncio.timeout(5):
        await asyncio.create_task(app(scope, receive, send))
    assert dispatcher.cancelled.is_set()
    assert sent == []


@pytest.mark.parametrize("name", ["content-type", "content-encoding"])
async def test_a_media_type_too_long_for_a_frame_never_reaches_the_worker(client, dispatcher, name):
    answer = await client.post(
        "/models/m/predict", content=b"{}", headers={**JSON, name: "a" * 5_000_000}
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert dispatcher.calls == []


def requests_with(*bodies):
    """Callers that have sent these pieces, and are still there."""

    pieces = list(bodies)

    async def receive():
        if not pieces:
            await asyncio.Event().wait()
        body, more = pieces.pop(0)
        return {"type": "http.request", "body": body, "more_body": more}

    return receive


async def call(app, receive, headers=()):
    """Call the app as a server does; return its answer's status."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/models/m/predict",
        "query_string": b"",
        "headers": list(headers),
    }
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return sent[0]["status"] if sent else None


async def test_the_bytes_of_a_body_count_while_it_arrives(app, admission):
    calls = [
        asyncio.ensure_future(call(app, requests_with((b"x" * 50_000, True)))) for _ in range(2)
    ]
    await asyncio.sleep(0.05)
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 100_000)
    assert await call(app, requests_with((b"x" * 60_000, False))) == 429
    assert await call(app, requests_with((b"x" * 15_000, True), (b"x" * 10_000, False))) == 429
    assert await call(app, requests_with((b"x" * 10_000, True), (b"x" * 10_000, False))) == 200
    assert await call(app, requests_with((b"x" * 50_000, False))) == 200, "it did not arrive slowly"
    assert await asyncio.gather(*calls) == [408, 408]


async def test_bodies_that_arrive_take_a_place_when_they_are_here(app, dispatcher, admission):
    """More of them than there are places; who has none then is refused, and costs nobody."""
    dispatcher.gate.clear()
    rest = asyncio.Event()

    def slowly():
        pieces = [b"x", b"y"]

        async def receive():
            if not pieces:
                await asyncio.Event().wait()
            if len(pieces) == 1:
                await rest.wait()
            return {"type": "http.request", "body": pieces.pop(0), "more_body": len(pieces) > 0}

        return receive

    slow = [asyncio.ensure_future(call(app, slowly())) for _ in range(5)]
    await until(lambda: admission.in_flight_bytes == 5)
    dispatcher.gate.set()
    assert await call(app, requests_with((b"quick", False))) == 200
    dispatcher.gate.clear()
    rest.set()
    await until(lambda: sum(one.done() for one in slow) == 2)
    assert (admission.in_flight, admission.in_flight_bytes) == (3, 6)
    dispatcher.gate.set()
    assert sorted(await asyncio.gather(*slow)) == [200, 200, 200, 429, 429]


async def test_a_large_body_without_room_is_refused_before_it_is_read(app, admission):
    place = admission.enter(90_000)
    read = []

    async def receive():
        read.append(1)
        return {"type": "http.disconnect"}

    assert await call(app, receive, [(b"content-length", b"70000")]) == 429
    assert len(read) == 1, "only to drop what comes, after the answer"
    place.let_go()


async def test_a_place_is_let_go_when_caller_and_worker_both_have(app, dispatcher, admission):
    calls = []

    async def predict(call):
        call.place.keep()  # as the dispatcher does for a worker
        calls.append(call)
        raise errors.DeadlineExceededError("too late")

    dispatcher.predict = predict
    assert await call(app, requests_with((b"body", False))) == 504
    assert (admission.in_flight, admission.in_flight_bytes) == (1, 4), "it is in the worker still"
    calls[0].place.let_go()


async def test_requests_beyond_the_number_are_refused_with_the_pace(client, dispatcher, admission):
    dispatcher.gate.clear()
    inside = [asyncio.ensure_future(client.post("/models/m/predict")) for _ in range(3)]
    async with asyncio.timeout(5):
        while admission.in_flight < 3:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
    answer = await client.post("/models/m/predict", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (429, "gateway_overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    dispatcher.gate.set()
    assert {one.status_code for one in await asyncio.gather(*inside)} == {200}


async def test_a_large_answer_counts_until_it_is_read_and_takes_no_place(
    app, dispatcher, admission
):
    read = asyncio.Event()

    async def predict(call):
        reply = WorkerReply(b"x" * 100_000, "application/json", 1, 0.1, 0.2, 1)
        return Answer(dispatcher.resolve(call), reply)

    async def send(message):
        if message["type"] == "http.response.body" and not message.get("more_body"):
            await read.wait()  # as a connection whose buffer is full

    dispatcher.predict = predict
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/models/m/predict",
        "query_string": b"",
        "headers": [],
    }
    answering = asyncio.ensure_future(app(scope, requests_with((b"body", False)), send))
    await asyncio.sleep(0.05)
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 100_004)
    read.set()
    await answering


@pytest.mark.parametrize("given", ["", "-1", "abc", "1e3", "nan", "inf", "0x1", "1.", "1 s", "1,5"])
async def test_nonsense_for_a_time_is_a_400(client, dispatcher, given):
    answer = await client.post("/models/m/predict", headers={"x-request-timeout": given})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_timeout")
    assert dispatcher.calls == []


async def test_two_times_are_refused(client):
    two = [("x-request-timeout", "3"), ("x-request-timeout", "3")]
    answer = await client.post("/models/m/predict", content=b"x", headers=two)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_timeout")


@pytest.mark.parametrize(("given", "seconds"), [("3", 3.0), ("0.25", 0.25), ("86400", 86400.0)])
async def test_a_caller_gives_its_request_so_many_seconds(client, dispatcher, given, seconds):
    before = time.monotonic()
    answer = await client.post("/models/m/predict", headers={"x-request-timeout": given})
    assert answer.status_code == 200
    assert before + seconds <= dispatcher.calls[0].deadline <= time.monotonic() + seconds
    await client.post("/models/m/predict")
    assert dispatcher.calls[1].deadline is None


async def test_a_body_that_comes_after_its_time_is_a_504(client, dispatcher):
    async def pieces():
        yield b"x"
        await asyncio.Event().wait()

    headers = {"x-request-timeout": "0.05"}
    answer = await client.post("/models/m/predict", content=pieces(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert answer.headers["connection"] == "close"
    assert dispatcher.calls == []


async def test_while_draining_nobody_is_let_in(client, dispatcher):
    dispatcher.draining = True
    answer = await client.post("/models/m/predict", content=b"x" * 1000)
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert answer.headers["connection"] == "close"
    assert dispatcher.calls == []


@pytest.mark.parametrize("draining", [True, False])
async def test_who_is_inside_when_the_time_for_it_is_over_is_told_so(app, dispatcher, draining):
    dispatcher.gate.clear()
    calling = asyncio.ensure_future(call(app, requests_with((b"body", False))))
    async with asyncio.timeout(5):
        while not dispatcher.calls:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
    dispatcher.draining = draining
    calling.cancel()
    if draining:
        assert await calling == 503
    else:
        with pytest.raises(asyncio.CancelledError):
            await calling
    dispatcher.gate.set()
