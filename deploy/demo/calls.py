"""A request that is printed as the ``curl`` a reader could type, and sent as the same request."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from deploy.demo.errors import DemoError

ANSWER_TIMEOUT_S = 60.0
SHOWN_HEADERS = ("X-Model-Version", "X-Model-Digest", "X-Route-Generation")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. ``body`` is parsed JSON, or text if it is not JSON."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: Any

    @property
    def shown_headers(self) -> dict[str, str]:
        """The headers that name the version."""
        return {name: self.headers[name] for name in SHOWN_HEADERS if name in self.headers}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, to print as a ``command`` and to ``send``."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None

    @property
    def command(self) -> str:
        """The ``curl`` that sends this request."""
        parts = ["curl", "-s"]
        if self.method != ("GET" if self.json is None else "POST"):
            parts += ["-X", self.method]
        parts.append(shlex.quote(self.url))
        for name, value in self.headers.items():
            parts += ["-H", shlex.quote(f"{name}: {value}")]
        if self.json is not None:
            parts += ["-H", shlex.quote("Content-Type: application/json")]
            parts += ["-d", shlex.quote(json.dumps(self.json))]
        return " ".join(parts)

    def send(self) -> Answer:
        """Send it on a connection of its own.

        Raises:
            DemoError: The server did not answer.
        """
        try:
            with httpx.Client(trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
                answer = client.request(
                    self.method, self.url, headers=dict(self.headers), json=self.json
                )
        except httpx.HTTPError as error:
            raise DemoError(f"no answer from {self.url}: {error}") from error
        return Answer(answer.status_code, answer.reason_phrase, answer.headers, _body(answer))


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text
