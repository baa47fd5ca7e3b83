"""HTTP/1.1 for the listeners of both planes: one open request per connection, all within limits.

The meaning of a request is its `Service`'s.
"""

from gateway.system.http1.asgi import App, AsgiService, Message, Receive, Scope, Send
from gateway.system.http1.body import Body, check_size
from gateway.system.http1.connections import (
    MOST_REFUSED,
    ConnectionLimits,
    Connections,
    most_open,
)
from gateway.system.http1.exchange import Exchange, Service
from gateway.system.http1.head import Header
from gateway.system.http1.refusals import MEDIA_TYPE, EndingError, RefusedError
from gateway.system.http1.server import Server

__all__ = [
    "MEDIA_TYPE",
    "MOST_REFUSED",
    "App",
    "AsgiService",
    "Body",
    "ConnectionLimits",
    "Connections",
    "EndingError",
    "Exchange",
    "Header",
    "Message",
    "Receive",
    "RefusedError",
    "Scope",
    "Send",
    "Server",
    "Service",
    "check_size",
    "most_open",
]
