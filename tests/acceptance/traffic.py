"""Callers, and what they were answered."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from tests.acceptance.scale import PAUSE_S

PAUSE_AFTER_REFUSAL_S = 0.05
REQUEST_LIMIT_S = 150.0

ROWS = 24
"""Callers choose a row by its index, from 0."""


def client(connections: int = 16) -> httpx.AsyncClient:
    """A client with room for ``connections`` requests at a time, none of them tried twice."""
    return httpx.AsyncClient(
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        timeout=httpx.Timeout(REQUEST_LIMIT_S),
        trust_env=False,
        verify=False,  # no gateway under test speaks TLS, and a context for it takes 15 ms to make
    )


@dataclass(frozen=True)
class Call:
    """What to ask: a row of a model, by path (``selector``), by header, or without version."""

    model: str
    row: int
    selector: str | None = None
    header: str | None = None

    @property
    def path(self) -> str:
        model = quote(self.model, safe="")
        if self.selector is None:
            return f"/models/{model}/predict"
        return f"/models/{model}/versions/{quote(self.selector, safe='@')}/predict"

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.header is None else {"X-Model-Version": self.header}


Choose = Callable[[random.Random], Call]
"""What a caller asks next."""


def asks(
    model: str, selector: str | None = None, *, header: str | None = None, rows: int = ROWS
) -> Choose:
    """A caller that asks always the same version, each time for one of ``rows`` rows."""
    return lambda dice: Call(model, dice.randrange(rows), selector, header)


@dataclass(frozen=True)
class Answer:
    """One request and how it ended. Times are ``time.monotonic()``."""

    call: Call
    sent_at: float
    done_at: float
    status: int | None
    version: int | None = None
    digest: str | None = None
    generation: int | None = None
    body: Any = None
    refusal: str | None = None
    """The transport's error, when there was no answer at all."""

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def predictions(self) -> Any:
        return self.body["predictions"] if self.ok else None

    @property
    def code(self) -> str | None:
        return self.body.get("code") if isinstance(self.body, dict) else None


async def ask(http: httpx.AsyncClient, url: str, call: Call, body: dict[str, Any]) -> Answer:
    """Send one request; never raises for what the gateway does."""
    sent_at = time.monotonic()
    try:
        answer = await http.post(url + call.path, json=body, headers=call.headers)
    except httpx.TransportError as error:
        return Answer(call, sent_at, time.monotonic(), None, refusal=repr(error))
    done_at = time.monotonic()
    try:
        content = answer.json()
    except ValueError:
        content = answer.text
    version = answer.headers.get("x-model-version")
    generation = answer.headers.get("x-route-generation")
    return Answer(
        call,
        sent_at,
        done_at,
        answer.status_code,
        int(version) if version else None,
        answer.headers.get("x-model-digest"),
        int(generation) if generation else None,
        content,
    )


@dataclass
class Traffic(AbstractAsyncContextManager["Traffic"]):
    """Callers that ask without end, each waiting for its answer, until the block ends."""

    http: httpx.AsyncClient
    url: str
    callers: Sequence[Choose]
    body_of: Callable[[Call], dict[str, Any]]
    seed: int = 0
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._call_on(number, choose))
            for number, choose in enumerate(self.callers)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let every request in the air finish; lose none of the record."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _call_on(self, number: int, choose: Choose) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        while not self._stopping:
            call = choose(dice)
            answer = await ask(self.http, self.url, call, self.body_of(call))
            self.answers.append(answer)
            await asyncio.sleep(PAUSE_S if answer.ok else PAUSE_AFTER_REFUSAL_S)

    def count(self, test: Callable[[Answer], bool]) -> int:
        return sum(1 for answer in self.answers if test(answer))


def describe(answers: Sequence[Answer], limit: int = 5) -> str:
    """The first few answers, for a failure's message."""
    return "\n".join(
        [f"{len(answers)} of them, the first:", *(repr(answer) for answer in answers[:limit])]
    )
