"""Become a command that ends with the control plane: ``python -I -S lifeline.py PIPE COMMAND…``.

``PIPE`` is the inherited read end of a pipe whose write end only the control plane holds. When that
closes, at the latest with the control plane, however it ended, the kernel kills the whole process
group, which this process leads. A death signal would come with the end of the starting thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from collections.abc import Sequence

CANNOT_BE_STARTED = 127


def main(arguments: Sequence[str]) -> int:
    """Bind this process's group to the pipe, and become the command; return only if it cannot."""
    pipe, command = int(arguments[0]), list(arguments[1:])
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if poll.poll(0):  # closed before the kernel was told
        return CANNOT_BE_STARTED
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python's own, which the command would keep
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - our own arguments, and no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
    return CANNOT_BE_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
