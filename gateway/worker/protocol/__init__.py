"""The protocol of gateway and worker: frames, messages and the worker's end of the connection."""
