"""Authentication of deliveries, which must be fresh and new.

Event loop only; nothing here waits.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WINDOW_S = 300
"""Most seconds between a timestamp and now, in the past or the future."""
MAX_REMEMBERED = 10_000
_MAX_ID_BYTES = 128
_MAX_TIMESTAMP_DIGITS = 12
_BEARER = b"Bearer "


class NotAuthenticError(Exception):
    """A delivery that is not the sender's, or not fresh. The message says why."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An authentic delivery; ``timestamp`` in epoch seconds."""

    delivery_id: bytes = b""
    timestamp: int = 0


class Sender(ABC):
    """One sender. By default its deliveries have no ids, so that repetitions are not recognised."""

    @abstractmethod
    def check_head(self, headers: Mapping[str, str]) -> None:
        """Check the headers before the body is read.

        Raises:
            NotAuthenticError: The delivery is not this sender's, or its timestamp is stale.
        """

    def check(self, headers: Mapping[str, str], body: bytes) -> Delivery:  # noqa: ARG002 - unsigned
        """Return the delivery with this body, if it is this sender's and fresh.

        Raises:
            NotAuthenticError: The delivery is not this sender's, or is stale.
        """
        self.check_head(headers)
        return Delivery()

    def has_accepted(self, delivery: Delivery) -> bool:  # noqa: ARG002 - as above
        """Whether this delivery has had its effect: senders repeat one with the same id."""
        return False

    def accept(self, delivery: Delivery) -> None:  # noqa: B027 - nothing to remember
        """Remember that a delivery has had its effect."""


@dataclass(frozen=True, slots=True)
class SignatureHeaders:
    """The headers of a sender's signature."""

    delivery_id: str
    timestamp: str
    signature: str


MLFLOW_HEADERS = SignatureHeaders(
    "x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature"
)
RELOAD_HEADERS = SignatureHeaders(
    "x-gateway-delivery-id", "x-gateway-timestamp", "x-gateway-signature"
)


class SigningSender(Sender):
    """A sender that signs what it delivers, as MLflow does; see `sign`.

    An id is remembered until its timestamp is stale. Beyond `MAX_REMEMBERED` ids, the one with the
    oldest timestamp is removed, and every delivery that is no younger counts as stale: no delivery
    is accepted twice. After a restart, a repeated delivery costs one more listing. ``clock`` gives
    epoch seconds.
    """

    def __init__(
        self, secret: str, headers: SignatureHeaders, *, clock: Callable[[], float]
    ) -> None:
        self._secret = secret.encode()
        self._headers = headers
        self._clock = clock
        self._accepted: set[bytes] = set()
        self._by_age: list[tuple[int, bytes]] = []
        self._forgotten_up_to = 0

    @property
    def remembered(self) -> int:
        """Number of remembered ids."""
        return len(self._by_age)

    def check(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """Return the delivery, if the secret signed it and its timestamp is in the window."""
        delivery, timestamp, signature = self._read(headers)
        expected = sign(self._secret, delivery.delivery_id, timestamp, body)
        if not hmac.compare_digest(expected, signature):
            raise NotAuthenticError(
                f"{self._headers.signature} does not match: the sender signs with another secret, "
                "or the delivery was altered on its way"
            )
        self._refuse_stale(delivery)
        return delivery

    def check_head(self, headers: Mapping[str, str]) -> None:
        """Check that all headers are present, and the timestamp is in the window."""
        self._refuse_stale(self._read(headers)[0])

    def _read(self, headers: Mapping[str, str]) -> tuple[Delivery, bytes, bytes]:
        """Return the delivery that the headers name, its timestamp as sent, and its signature."""
        delivery_id = _header(headers, self._headers.delivery_id)
        timestamp = _header(headers, self._headers.timestamp)
        signature = _header(headers, self._headers.signature)
        if len(delivery_id) > _MAX_ID_BYTES:
            raise NotAuthenticError(
                f"{self._headers.delivery_id} must have at most {_MAX_ID_BYTES} bytes"
            )
        if not (timestamp.isdigit() and len(timestamp) <= _MAX_TIMESTAMP_DIGITS):
            raise NotAuthenticError(
                f"{self._headers.timestamp} must be a whole number of seconds since 1970"
            )
        return Delivery(delivery_id, int(timestamp)), timestamp, signature

    def _refuse_stale(self, delivery: Delivery) -> None:
        forgotten = delivery.timestamp <= self._forgotten_up_to and not self.has_accepted(delivery)
        if forgotten or abs(self._clock() - delivery.timestamp) > WINDOW_S:
            raise NotAuthenticError(
                f"{self._headers.timestamp} must be within {WINDOW_S} s of this machine's clock"
            )

    def has_accepted(self, delivery: Delivery) -> bool:
        """Whether this very delivery has had its effect."""
        return delivery.delivery_id in self._accepted

    def accept(self, delivery: Delivery) -> None:
        """Remember that a delivery has had its effect."""
        if self.has_accepted(delivery):
            return
        too_old = self._clock() - WINDOW_S
        while self._by_age and self._by_age[0][0] < too_old:
            self._forget_oldest()
        self._accepted.add(delivery.delivery_id)
        heapq.heappush(self._by_age, (delivery.timestamp, delivery.delivery_id))
        if self.remembered > MAX_REMEMBERED:
            self._forgotten_up_to = self._forget_oldest()

    def _forget_oldest(self) -> int:
        timestamp, delivery_id = heapq.heappop(self._by_age)
        self._accepted.discard(delivery_id)
        return timestamp


class TokenSender(Sender):
    """A sender that can only show a token: ``Authorization: Bearer <token>``."""

    def __init__(self, token: str) -> None:
        self._shown = _BEARER + token.encode()

    def check_head(self, headers: Mapping[str, str]) -> None:
        """Check the token in ``Authorization``."""
        if not hmac.compare_digest(self._shown, _header(headers, "authorization")):
            raise NotAuthenticError("the token after `Authorization: Bearer` is wrong")


def sign(secret: bytes, delivery_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Return the signature of a delivery, as MLflow makes it after Standard Webhooks.

    HMAC-SHA256 over ``<delivery id>.<timestamp>.<body>``, in base64 after ``v1,``. The key is the
    text of the secret, which is not decoded.
    """
    digest = hmac.digest(secret, b".".join((delivery_id, timestamp, body)), hashlib.sha256)
    return b"v1," + base64.b64encode(digest)


def _header(headers: Mapping[str, str], name: str) -> bytes:
    value = headers.get(name)
    if not value:
        raise NotAuthenticError(f"the header {name} is missing")
    return value.encode("latin-1", "replace")  # as ASGI servers decode it
