"""Errors of the demonstration."""

from __future__ import annotations


class DemoError(Exception):
    """A step or its preparation failed. The message is for the reader."""


class EndedBySignalError(BaseException):
    """SIGTERM or SIGHUP came. Not an `Exception`: nothing but the clean-up may catch it.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
