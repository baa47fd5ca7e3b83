"""HTTP/1.1 on a listener: one request open per connection, everything within a limit.

Both planes listen with it. It knows nothing of models: what a request means is its `Service`'s.
"""
