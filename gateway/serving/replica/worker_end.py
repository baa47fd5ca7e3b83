"""How a worker's process ended, and what it wrote last. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

_OF_A_FAULT = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
"""Signals that a process gets for what it does itself. Others come from outside."""
_FATAL = "Fatal Python error"
_EXTENSIONS = "Extension modules:"
_LINES = 6
_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """The end of a process: its exit status, minus its signal, or None if unknown."""

    status: int | None = None

    @property
    def is_crash(self) -> bool:
        """Whether the process ended itself, so that the same bytes are likely to do so again."""
        if self.status is None:
            return False
        return self.status >= 0 or -self.status in _OF_A_FAULT

    def __str__(self) -> str:
        """Return the end as the end of a sentence about the worker."""
        if self.status is None:
            return "ended"
        if self.status >= 0:
            return f"ended itself with exit status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        return f"was ended by {name}"


def last_lines(output: str) -> str:
    """Return the lines that say most about an end: of a fatal error its first, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_EXTENSIONS)]
    fatal = next((at for at, line in enumerate(lines) if line.startswith(_FATAL)), None)
    shown = lines[-_LINES:] if fatal is None else lines[fatal : fatal + _LINES]
    text = " | ".join(shown)
    return text[:_CHARACTERS] if fatal is not None else text[-_CHARACTERS:]
