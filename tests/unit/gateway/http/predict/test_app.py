"""The prediction routes against a dispatcher of a fake: paths, headers, limits, errors."""

import asyncio
import time

import httpx
import pytest
from structlog.testing import capture_logs

from gateway import errors
from gateway.http.predict.app import Predictions
from gateway.http.problems import STATUS
from gateway.observability.metrics import Telemetry
from gateway.routing.route_table import Route
from gateway.serving.admission import Admission
from gateway.serving.replica.requests import WorkerReply
from gateway.system.http1.asgi import AsgiService
from gateway.system.http1.refusals import MEDIA_TYPE
from tests.fakes.waiting import becomes
from tests.fakes.wire import WireTransport, connect

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
        return WorkerReply(b"{}", "application/json", 1, 0.1, 0.2, 1)

    def begin(self, call, on_done):
        call.route = self.resolve(call)
        call.pending = asyncio.ensure_future(self.predict(call))
        call.pending.add_done_callback(on_done)


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
    following = AsgiService(elsewhere, max_body_bytes=100_000, body_timeout_s=0.2)
    return Predictions(following, dispatcher, Telemetry(), admission)


@pytest.fixture(autouse=True)
def nothing_is_kept(admission):
    """Whatever became of its requests, the gateway holds nothing of them afterwards."""
    yield
    assert (admission.in_flight, admission.in_flight_bytes, admission.buffered_bytes) == (0, 0, 0)


@pytest.fixture(params=[True, False], ids=["whole", "in pieces"])
async def client(request, app):
    transport = WireTransport(app, whole=request.param)
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "header", "model", "selector", "second_selector"),
    [
        ("/models/m/predict", None, "m", None, None),
        ("/models/m/predict", "3", "m", 3, None),
        ("/models/m/predict", "champion", "m", "champion", None),
        ("/models/m/predict", "@champion", "m", "champion", None),
        ("/models/m/predict", "latest", "m", "latest", None),
        ("/models/m/versions/3/predict", None, "m", 3, None),
        ("/models/m/versions/@prod/predict", None, "m", "prod", None),
        ("/models/m/versions/%40prod/predict", None, "m", "prod", None),
        ("/models/m/versions/@%C3%BCn%C3%AF/predict", None, "m", "ünï", None),
        ("/models/m/predict", "ünï".encode(), "m", "ünï", None),
        ("/models/m/predict", "@%C3%BCn%C3%AF", "m", "ünï", None),
        ("/models/m/predict", " %33 ", "m", 3, None),
        ("/models/m/versions/3/predict", "4", "m", 3, 4),
        ("/models/a%20b%3F%2525/predict", None, "a b?%25", None, None),
        ("/models/%C3%BCml/predict/", None, "üml", None, None),
    ],
)
async def test_path_and_header_name_the_version(
    client, dispatcher, path, header, model, selector, second_selector
):
    headers = JSON | ({"x-model-version": header} if header else {})
    answer = await client.post(path, content=b"body", headers=headers)
    assert answer.status_code == 200
    call = dispatcher.calls[0]
    given = (call.model, call.selector, call.second_selector, call.body)
    assert given == (model, selector, second_selector, b"body")


@pytest.mark.parametrize(
    ("header", "code"),
    [("x-model-version", "invalid_selector"), ("x-request-timeout", "invalid_timeout")],
)
async def test_duplicate_headers_that_may_disagree_are_refused(client, header, code):
    answer = await client.post("/models/m/predict", content=b"x", headers=[(header, "3")] * 2)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    answer = await client.post("/models/m/predict", content=b"x", headers=[("x-a", "1")] * 2)
    assert answer.status_code == 200


async def test_every_answer_names_its_version(client):
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
    ("path", "header", "says"),
    [
        ("/models/m/versions/0/predict", None, "from 1 to"),
        ("/models/m/versions/a.b/predict", None, "letters, digits"),
        ("/models/m/predict", "1.0", "letters, digits"),
        ("/models/a%3Ab/predict", None, "must not contain"),
        ("/models/%FF/predict", None, "not a model's name"),
        ("/models/m/versions/@%FC/predict", None, "it is not UTF-8; percent-encode"),
        ("/models/m/predict", "ünï".encode("latin-1"), "it is not UTF-8; percent-encode"),
        ("/models/m/predict", "u\u0308n".encode(), "NFC"),
        ("/models/m/predict", "🙂".encode(), "letters, digits"),
        ("/models/m/predict", "٣".encode(), "with the digits 0 to 9"),
    ],
)
async def test_malformed_selector_is_refused_with_advice(client, dispatcher, path, header, says):
    headers = {} if header is None else {"x-model-version": header}
    problem = (await client.post(path, headers=headers)).json()
    assert (problem["status"], problem["code"]) == (400, "invalid_selector")
    assert says in problem["detail"]
    assert dispatcher.calls == []


async def test_other_routes_reach_the_application(client):
    assert (await client.get("/models/m/predict")).status_code == 299
    assert (await client.post("/models/m")).status_code == 299


@pytest.mark.parametrize("error", STATUS)
async def test_every_error_has_its_status_and_shape(client, dispatcher, error):
    dispatcher.error = error("what happened", retry_after_s=1.2)
    answer = await client.post("/models/m/predict")
    body = answer.json()
    assert answer.status_code == body["status"] == STATUS[error]
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["retry-after"] == "2"
    assert (body["code"], body["detail"]) == (error.code, "what happened")
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_error_names_its_version_after_the_alias_moved(client, dispatcher):
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
async def test_callers_faults_are_logged_at_debug_level(client, dispatcher, error, level):
    dispatcher.error = error("what happened")
    with capture_logs() as logs:
        await client.post("/models/m/predict")
    assert [(one["event"], one["log_level"]) for one in logs] == [("request.refused", level)]


async def test_unexpected_error_is_a_500_without_its_text(client, dispatcher):
    dispatcher.error = RuntimeError("secret")
    answer = await client.post("/models/m/predict")
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_a_413(client, dispatcher, chunked):
    async def pieces():
        for _ in range(11):
            yield b"x" * 10_000

    content = pieces() if chunked else b"x" * 100_001
    answer = await client.post("/models/m/predict", content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert dispatcher.calls == []


async def test_body_that_stops_is_a_408(client, dispatcher):
    async def pieces():
        yield b"x"
        await asyncio.Event().wait()

    answer = await client.post("/models/m/predict", content=pieces())
    assert (answer.status_code, answer.json()["code"]) == (408, "body_timeout")


async def test_query_parameter_adds_probabilities(client, dispatcher):
    await client.post("/models/m/predict?probabilities=true")
    assert dispatcher.calls[0].probabilities is True
    answer = await client.post("/models/m/predict?probabilities=perhaps")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/models/m/predict?" + "%41" * 1000, {}, 422),
        ("/models/m/predict", {"x-model-version": "%41" * 15_000}, 400),
        ("/models/" + "%41" * 20_000 + "/predict", {}, 414),
        ("/models/m/predict?" + "&".join(["a=1"] * 10_000), {}, 414),
        ("/models/" + "%41" * 3000 + "/predict", {}, 400),
    ],
    ids=["query", "header", "path", "fields", "name"],
)
async def test_overlong_selector_is_refused_before_decoding(
    client, dispatcher, path, headers, status
):
    answer = await client.post(path, content=b"x", headers=headers)
    assert answer.status_code == status
    assert dispatcher.calls == []


def request(length=None, path=b"/models/m/predict"):
    """Head of a request with a body of so many bytes; chunked: None."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"POST %b HTTP/1.1\r\nhost: g\r\n%b\r\n\r\n" % (path, framing)


def calling(app, *pieces):
    """Connect a caller who sends these pieces."""
    wire = connect(app)
    for piece in pieces:
        wire.send(piece)
    return wire


WHOLE = request(4) + b"body"


@pytest.mark.parametrize("pieces", [(WHOLE,), (WHOLE[:-2], WHOLE[-2:])])
async def test_hanging_up_cancels_the_prediction(app, dispatcher, admission, pieces):
    dispatcher.gate.clear()
    wire = calling(app, *pieces)
    await becomes(lambda: dispatcher.calls, "it is dispatched")
    wire.close()
    async with asyncio.timeout(10):
        await dispatcher.cancelled.wait()
    await becomes(lambda: not admission.in_flight, "its slot is free")
    assert wire.written == b""


@pytest.mark.parametrize("pieces", [(WHOLE,), (WHOLE[:-2], WHOLE[-2:]), (WHOLE[:-2],)])
async def test_caller_is_refused_when_the_process_ends(app, dispatcher, pieces):
    dispatcher.gate.clear()
    wire = calling(app, *pieces)
    if wire.connection._body is None:
        await becomes(lambda: dispatcher.calls, "it is dispatched")
    wire.connection.end_exchange()
    status, headers, _ = await wire.answered()
    assert (status, dict(headers)["connection"]) == (503, "close")


@pytest.mark.parametrize("size", [100_000, 70_000])
async def test_large_answer_counts_until_it_is_read_and_holds_no_slot(
    app, dispatcher, admission, size
):
    async def predict(call):
        return WorkerReply(b"x" * size, "application/json", 1, 0.1, 0.2, 1)

    dispatcher.predict = predict
    wire = connect(app)
    wire.reads = False
    wire.send(WHOLE + WHOLE)
    await becomes(lambda: admission.in_flight_bytes == size, "its bytes count")
    assert admission.in_flight == 0
    await asyncio.sleep(0.02)
    assert wire.written.count(b"HTTP/1.1 200") == 1, "the next request waits for the reader"
    exchange = wire.connection._exchange
    assert exchange is not None
    assert (exchange.body, exchange.headers) == (b"", []), "it waits for its reader only"
    wire.read_all()
    await becomes(lambda: wire.written.count(b"HTTP/1.1 200") == 2, "both are answered")
    assert wire.written.endswith(b"x" * size)
    await becomes(lambda: not admission.in_flight_bytes, "no byte counts")


async def test_unread_answer_of_a_caller_that_hung_up_is_not_counted(app, dispatcher, admission):
    async def predict(call):
        return WorkerReply(b"x" * 100_000, "application/json", 1, 0.1, 0.2, 1)

    dispatcher.predict = predict
    wire = connect(app)
    wire.reads = False
    wire.send(WHOLE)
    await becomes(lambda: admission.in_flight_bytes, "its bytes count")
    wire.close()
    await becomes(lambda: not admission.in_flight_bytes, "no byte counts")


@pytest.mark.parametrize("name", ["content-type", "content-encoding"])
async def test_overlong_media_type_never_reaches_the_worker(client, dispatcher, name):
    answer = await client.post(
        "/models/m/predict", content=b"{}", headers={**JSON, name: "a" * 60_000}
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert dispatcher.calls == []


async def test_arriving_bytes_of_a_body_count(app, admission):
    slow = [calling(app, request(50_001), b"x" * 50_000) for _ in range(2)]
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 100_000)
    assert await status(app, request(60_000) + b"x" * 60_000) == 429
    assert await status(app, request(25_000), b"x" * 15_000) == 429
    assert await status(app, request(20_000), b"x" * 10_000, b"x" * 10_000) == 200
    assert await status(app, request(50_000) + b"x" * 50_000) == 200, "it did not arrive slowly"
    assert [(await one.answered())[0] for one in slow] == [408, 408]


async def status(app, *pieces):
    return (await calling(app, *pieces).answered())[0]


async def test_arriving_body_takes_a_slot_once_it_is_complete(app, dispatcher, admission):
    """More of them than there are places; who has none then is refused, and costs nobody."""
    slow = [calling(app, request(), b"1\r\nx\r\n") for _ in range(5)]
    assert admission.in_flight_bytes == 5
    assert await status(app, request(5) + b"quick") == 200
    dispatcher.gate.clear()
    for one in slow:
        one.send(b"1\r\ny\r\n0\r\n\r\n")
    assert [(await one.answered())[0] for one in slow[3:]] == [429, 429]
    assert (admission.in_flight, admission.in_flight_bytes) == (3, 6)
    dispatcher.gate.set()
    assert [(await one.answered())[0] for one in slow[:3]] == [200, 200, 200]


async def test_large_body_without_room_is_refused_by_its_length(app, admission):
    slot = admission.enter(90_000)
    wire = calling(app, request(70_000).replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
    status, headers, _ = await wire.answered()
    assert (status, dict(headers)["connection"]) == (429, "close")
    assert b"HTTP/1.1 100" not in wire.written
    slot.release()


async def test_slot_is_free_once_caller_and_worker_have_released_it(app, dispatcher, admission):
    calls = []

    async def predict(call):
        call.slot.share()  # as the dispatcher does for a worker
        calls.append(call)
        raise errors.DeadlineExceededError("too late")

    dispatcher.predict = predict
    assert await status(app, WHOLE) == 504
    assert (admission.in_flight, admission.in_flight_bytes) == (1, 4), "it is in the worker still"
    calls[0].slot.release()


async def test_requests_beyond_the_slots_are_refused_with_retry_after(
    client, dispatcher, admission
):
    dispatcher.gate.clear()
    inside = [asyncio.ensure_future(client.post("/models/m/predict")) for _ in range(3)]
    await becomes(lambda: admission.in_flight == 3, "they are in flight")
    answer = await client.post("/models/m/predict", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (429, "gateway_overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    dispatcher.gate.set()
    assert {one.status_code for one in await asyncio.gather(*inside)} == {200}


@pytest.mark.parametrize("given", ["", "-1", "abc", "1e3", "nan", "inf", "0x1", "1.", "1 s", "1,5"])
async def test_malformed_request_timeout_is_a_400(client, dispatcher, given):
    answer = await client.post("/models/m/predict", headers={"x-request-timeout": given})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_timeout")
    assert dispatcher.calls == []


@pytest.mark.parametrize(("given", "seconds"), [("3", 3.0), ("0.25", 0.25), ("86400", 86400.0)])
async def test_request_timeout_sets_the_deadline(client, dispatcher, given, seconds):
    before = time.monotonic()
    answer = await client.post("/models/m/predict", headers={"x-request-timeout": given})
    assert answer.status_code == 200
    assert before + seconds <= dispatcher.calls[0].deadline <= time.monotonic() + seconds
    await client.post("/models/m/predict")
    assert dispatcher.calls[1].deadline is None


async def test_body_after_its_deadline_is_a_504(client, dispatcher):
    async def pieces():
        yield b"x"
        await asyncio.Event().wait()

    headers = {"x-request-timeout": "0.05"}
    answer = await client.post("/models/m/predict", content=pieces(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert answer.headers["connection"] == "close"
    assert dispatcher.calls == []


async def test_draining_gateway_refuses_predictions(client, dispatcher):
    dispatcher.draining = True
    answer = await client.post("/models/m/predict", content=b"x" * 1000)
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert answer.headers["connection"] == "close"
    assert dispatcher.calls == []
