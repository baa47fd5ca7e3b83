"""The HTTP surface: the public listener, and the control contract on its Unix socket."""
