"""What the gateway is measured against: a raw ASGI callable that reads and decodes the body.

On the same server with the same settings as the gateway's public listener.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvicorn

from gateway.http.listener import server_config

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
    config = server_config(
        app, host="127.0.0.1", port=int(sys.argv[1]), http="httptools", loop="uvloop"
    )
    uvicorn.Server(config).run()
