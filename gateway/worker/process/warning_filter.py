"""Write each Python warning of a library once per source line, up to a limit.

A library may warn in every call. Filters, recording and warnings as errors stay as the model sets
them; only the output shrinks. ``warnings.showwarning`` is documented as replaceable, and
``warnings.catch_warnings`` restores it.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TextIO

_MOST_LOCATIONS = 100
_MOST_CHARACTERS = 300


class WarningLog:
    """Writes warnings to standard error, without their text once requests are served.

    Attributes:
        serving: Whether the worker serves requests, whose data a warning's text may quote.
    """

    def __init__(self) -> None:
        self.serving = False
        self._locations: set[tuple[type[Warning], str, int]] = set()

    def install(self) -> None:
        """Replace ``warnings.showwarning``."""
        warnings.showwarning = self.show

    def show(  # noqa: PLR0917  # the signature of ``showwarning``
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Write a warning, unless its source line gave one of its category before."""
        if file is not None:  # the caller chose the file: write it there in full
            file.write(warnings.formatwarning(message, category, filename, lineno, line))
            return
        location = (category, filename, lineno)
        if location in self._locations or len(self._locations) >= _MOST_LOCATIONS:
            return
        self._locations.add(location)
        text = "" if self.serving else f": {message}"[:_MOST_CHARACTERS]
        with contextlib.suppress(Exception):  # a model may have closed the stream
            sys.stderr.write(f"warning: {category.__name__} in {filename}, line {lineno}{text}\n")
