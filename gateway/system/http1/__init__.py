"""HTTP/1.1 for the listeners of both planes: one open request per connection, all within limits.

The meaning of a request is its `Service`'s.
"""

from gateway.system.http1.asgi import (
    App as App,
    AsgiService as AsgiService,
    Message as Message,
    Receive as Receive,
    Scope as Scope,
    Send as Send,
)
from gateway.system.http1.body import Body as Body, check_size as check_size
from gateway.system.http1.connections import (
    MOST_REFUSED as MOST_REFUSED,
    ConnectionLimits as ConnectionLimits,
    Connections as Connections,
    most_open as most_open,
)
from gateway.system.http1.exchange import Exchange as Exchange, Service as Service
from gateway.system.http1.refusals import (
    MEDIA_TYPE as MEDIA_TYPE,
    EndingError as EndingError,
    RefusedError as RefusedError,
    problem_of as problem_of,
)
from gateway.system.http1.server import Server as Server
