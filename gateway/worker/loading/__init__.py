"""From LOAD to a model that serves: verified, loaded, warmed, and its shortcuts proved."""
