"""Load and call models of each flavor. Heavy imports happen inside the functions."""


class NotTakenError(Exception):
    """A bare model must not be called with these inputs: its answer may differ from pyfunc's."""
