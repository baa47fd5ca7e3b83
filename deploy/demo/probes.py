"""Checks with other requests and rows than the printed ones.

Every probe returns its finding as a sentence, or raises `DemoError`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from deploy.demo.errors import DemoError
from deploy.demo.models import CHAMPION, CHURN, Trained

TIMEOUT_S = 60.0
OK, QUARANTINED = 200, 503


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes, with the addresses of the servers and the predictions of the models."""

    gateway_url: str
    mlflow_url: str
    trained: Trained

    def active(self, model: str = CHURN, alias: str = CHAMPION) -> int | None:
        """Return the version that an alias means on the gateway, or None if it means none yet."""
        seen = self._ask(f"/models/{quote(model, safe='')}")
        if seen.status_code != OK:
            return None
        version = seen.json()["aliases"].get(alias, {}).get("active")
        return None if version is None else int(version)

    def state(self, version: int) -> tuple[str, str]:
        """Return the state of a version of ``churn`` on the gateway, and the reason for it."""
        body = self._ask(f"/models/{CHURN}/versions/{version}").json()
        return str(body.get("state")), str(body.get("reason") or "")

    def registry_says(self, alias: str = CHAMPION) -> int:
        """Return the version that an alias means in MLflow."""
        query = f"?name={CHURN}&alias={alias}"
        url = f"{self.mlflow_url}/api/2.0/mlflow/registered-models/alias{query}"
        return int(_send(url, None, {}).json()["model_version"]["version"])

    def answers(self, expected: int, path: str, headers: Mapping[str, str] | None = None) -> None:
        """Predict every probe row, and compare with the predictions of version ``expected``.

        Raises:
            DemoError: The answer has another status, version or prediction.
        """
        body = {"dataframe_records": self.trained.rows}
        seen = self._ask(f"/models/{CHURN}{path}/predict", body, headers or {})
        asked = f"POST /models/{CHURN}{path}/predict {dict(headers or {}) or ''}".rstrip()
        if seen.status_code != OK:
            raise DemoError(f"{asked}: {seen.status_code} {seen.text}")
        if (version := seen.headers.get("X-Model-Version")) != str(expected):
            raise DemoError(f"{asked}: version {version} answered, not {expected}")
        if seen.json()["predictions"] != self.trained.for_rows[expected]:
            raise DemoError(f"{asked}: not what version {expected} predicts")

    def champion_is(self, expected: int) -> str:
        """Check all three ways to name the champion."""
        self.answers(expected, f"/versions/@{CHAMPION}")
        self.answers(expected, "", {"X-Model-Version": CHAMPION})
        self.answers(expected, "")
        if (active := self.active()) != expected:
            raise DemoError(f"GET /models/{CHURN} says that {active} is active, not {expected}")
        return f"@{CHAMPION} is version {expected}, by path, by header and without a version"

    def champion_stays(self, expected: int, seconds: float) -> str:
        """Check the same for so many seconds, in which the control plane lists the registry."""
        until = time.monotonic() + seconds
        count = 0
        while count == 0 or time.monotonic() < until:
            self.champion_is(expected)
            count += 1
            time.sleep(0.05)
        return f"@{CHAMPION} stays version {expected}: asked for {seconds:.0f} s, {count * 3} times"

    def refused(self, version: int) -> str:
        """Check that a version is quarantined, with a reason, and does not answer."""
        state, reason = self.state(version)
        if state != "quarantined" or not reason:
            raise DemoError(f"version {version} is {state!r}, reason {reason!r}")
        body = {"dataframe_records": self.trained.rows}
        seen = self._ask(f"/models/{CHURN}/versions/{version}/predict", body, {})
        if seen.status_code != QUARANTINED:
            raise DemoError(f"version {version} answers with {seen.status_code}")
        return f"version {version} is quarantined and answers 503 {seen.json().get('code')}"

    def registry_is_down(self) -> str:
        """Check that no process listens at MLflow's address."""
        address = urlsplit(self.mlflow_url)
        try:
            with socket.create_connection((address.hostname or "", address.port or 0), TIMEOUT_S):
                raise DemoError(f"something still listens on {self.mlflow_url}")
        except OSError as error:
            return f"MLflow is down: {error.strerror}"

    def _ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return _send(self.gateway_url + path, body, headers or {})


def answers_ok(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        return _send(url, None, {}).status_code == OK
    except DemoError:
        return False


def _send(url: str, body: Any, headers: Mapping[str, str]) -> httpx.Response:
    """Return the answer to a GET or, with a body, to a POST.

    Raises:
        DemoError: The server did not answer.
    """
    method = "GET" if body is None else "POST"
    try:
        with httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client:
            return client.request(method, url, headers=dict(headers), json=body)
    except httpx.HTTPError as error:
        raise DemoError(f"no answer from {url}: {error}") from error
