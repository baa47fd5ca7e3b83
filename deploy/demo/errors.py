"""What can go wrong in the demonstration."""

from __future__ import annotations


class DemoError(Exception):
    """A step did not hold, or something on the way to it failed. The message is for the reader."""


class EndedBySignalError(BaseException):
    """SIGTERM or SIGHUP came. Not an `Exception`: nothing but the clean-up may catch it.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(number)
        self.number = number
