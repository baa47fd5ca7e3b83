"""Starts the control plane: ``python -m registry_sync``; with arguments: ``registry-gateway``."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def _end(_signal: int, _frame: FrameType | None) -> None:
    """Exit at once: nothing runs yet that must end."""
    sys.exit(0)


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["control-plane"]
    if arguments == ["control-plane"]:
        # A SIGTERM during the imports below, which take a second, is not a failure.
        signal.signal(signal.SIGTERM, _end)
    from registry_sync.cli import main

    main(arguments, name="python -m registry_sync")
