"""What the gateway is measured against: a raw ASGI callable that reads and decodes the body.

On uvicorn, with nothing switched on that costs time.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvicorn

PLAIN: dict[str, Any] = {
    "host": "127.0.0.1",
    "loop": "uvloop",
    "ws": "none",
    "interface": "asgi3",
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "server_header": False,
}
"""uvicorn without what this gateway does not have either."""
_ANSWER = orjson.dumps({"predictions": [0]})
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_ANSWER)).encode()),
]


async def app(_scope: Any, receive: Any, send: Any) -> None:
    """Read the body, decode it, answer a constant."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    orjson.loads(body)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", **PLAIN)
