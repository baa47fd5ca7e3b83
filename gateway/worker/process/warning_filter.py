"""Python's warnings of libraries: each place once, and no more than so many.

A library may warn in every call. What is filtered, recorded or turned into an error is up to the
model, as ever; only what would be written is less. It goes through ``warnings.showwarning``, which
is there to be replaced and which ``warnings.catch_warnings`` puts back.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TextIO

_MOST_PLACES = 100
_MOST_CHARACTERS = 300


class WarningLog:
    """Writes warnings to standard error, with their text only as long as no caller's data is in.

    Attributes:
        serving: Whether the worker has requests, of which a warning's text may quote.
    """

    def __init__(self) -> None:
        """Nothing is written yet."""
        self.serving = False
        self._places: set[tuple[type[Warning], str, int]] = set()

    def install(self) -> None:
        """Take the place of ``warnings.showwarning``."""
        warnings.showwarning = self.show

    def show(  # noqa: PLR0917  # the signature of what it stands for
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Write a warning, if none of its kind came from its place before."""
        if file is not None:  # somebody wants it there, and whole
            file.write(warnings.formatwarning(message, category, filename, lineno, line))
            return
        place = (category, filename, lineno)
        if place in self._places or len(self._places) >= _MOST_PLACES:
            return
        self._places.add(place)
        told = "" if self.serving else f": {message}"[:_MOST_CHARACTERS]
        with contextlib.suppress(Exception):  # a model may have closed the stream
            sys.stderr.write(f"warning: {category.__name__} in {filename}, line {lineno}{told}\n")
