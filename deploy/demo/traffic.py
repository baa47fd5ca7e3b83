"""Clients that send requests all the time, and remember every answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from deploy.demo.models import CHURN, Trained

PAUSE_S = 0.005
JOIN_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Client:
    """One client: its request, and the version that must answer, or None for the active one."""

    name: str
    path: str
    headers: Mapping[str, str]
    version: int | None


CLIENTS = (
    Client("alias in the path", f"/models/{CHURN}/versions/@champion/predict", {}, None),
    Client(
        "alias in the header", f"/models/{CHURN}/predict", {"X-Model-Version": "champion"}, None
    ),
    Client("no version", f"/models/{CHURN}/predict", {}, None),
    Client("version 1 in the path", f"/models/{CHURN}/versions/1/predict", {}, 1),
    Client("version 2 in the header", f"/models/{CHURN}/predict", {"X-Model-Version": "2"}, 2),
)


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are epoch seconds; ``fault`` is None if the answer was right."""

    client: Client
    sent_at: float
    done_at: float
    version: int | None
    fault: str | None


class Traffic:
    """Runs every client of `CLIENTS` in a thread of its own, from ``start`` to ``stop``.

    Answers of ``gateway_url`` are compared with the predictions of the trained models.
    """

    def __init__(self, gateway_url: str, trained: Trained) -> None:
        self._gateway_url = gateway_url
        self._trained = trained
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._records: dict[str, list[Record]] = {client.name: [] for client in CLIENTS}

    def start(self) -> None:
        """Start the clients."""
        for client in CLIENTS:
            thread = threading.Thread(target=self._run, args=(client,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let every client finish its present request, then end it."""
        self._over.set()
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def records(self) -> list[Record]:
        """Every request that was answered or failed so far, in order of sending."""
        found = [record for records in self._records.values() for record in list(records)]
        return sorted(found, key=lambda record: record.sent_at)

    def answered(self, *, at_least: int) -> bool:
        """Return whether every client has got that many answers, failures included."""
        return all(len(records) >= at_least for records in self._records.values())

    @property
    def faults(self) -> list[str]:
        """The faults of answers, the most frequent first."""
        found = Counter(record.fault for record in self.records if record.fault is not None)
        return [f"{fault} ({count} times)" for fault, count in found.most_common()]

    def _run(self, client: Client) -> None:
        with httpx.Client(base_url=self._gateway_url, trust_env=False, timeout=60.0) as session:
            while not self._over.wait(PAUSE_S):
                self._records[client.name].append(self._ask(session, client))

    def _ask(self, session: httpx.Client, client: Client) -> Record:
        sent_at = time.time()
        version: int | None = None
        try:
            answer = session.post(
                client.path,
                headers=dict(client.headers),
                json={"features": self._trained.customer},
            )
            version = _version(answer)
            fault = self._fault(client, answer, version)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            fault = f"{client.name}: {type(error).__name__}: {error}"
        return Record(client, sent_at, time.time(), version, fault)

    def _fault(self, client: Client, answer: httpx.Response, version: int | None) -> str | None:
        """Return how an answer differs from its version's prediction, or None if it does not."""
        if answer.status_code != httpx.codes.OK:
            return f"{client.name}: {answer.status_code} {answer.text[:200]}"
        if version is None or (client.version is not None and version != client.version):
            return f"{client.name}: answered by version {version}"
        expected = [self._trained.for_customer.get(version)]
        if answer.json()["predictions"] != expected:
            return f"{client.name}: version {version} answered something else than it predicts"
        return None


def _version(answer: httpx.Response) -> int | None:
    text = answer.headers.get("X-Model-Version", "")
    return int(text) if text.isdigit() else None


@dataclass(frozen=True, slots=True)
class Swap:
    """The moment at which alias callers changed from one version to the next.

    Attributes:
        last_old: Epoch seconds of the last answer of the old version.
        first_new: Epoch seconds of the first answer of the new version.
        stale: Requests sent after ``shown_at`` that the old version answered.
    """

    last_old: float
    first_new: float
    stale: int


def find_swap(records: Sequence[Record], old: int, new: int, shown_at: float) -> Swap | None:
    """Return the swap that alias callers saw, or None if they did not see both versions."""
    by_alias = [record for record in records if record.client.version is None]
    olds = [record for record in by_alias if record.version == old]
    news = [record for record in by_alias if record.version == new]
    if not olds or not news:
        return None
    return Swap(
        last_old=max(record.done_at for record in olds),
        first_new=min(record.done_at for record in news),
        stale=sum(record.sent_at > shown_at for record in olds),
    )
