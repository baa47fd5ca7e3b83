"""How gateway and worker talk: frames, messages and the worker's end of the connection."""
