"""Become a command that ends with its parent: ``python -I -S lifeline.py PIPE COMMAND…``.

``PIPE`` is the inherited read end of a pipe whose write end only the parent holds. When the write
end closes, at the latest when the parent dies, the kernel kills the process group that this process
leads. PDEATHSIG would not do: it follows the thread that started the process.
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
    """Bind the process group to the pipe and become the command; return only on failure."""
    pipe, command = int(arguments[0]), list(arguments[1:])
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if poll.poll(0):  # closed before O_ASYNC was set
        return CANNOT_BE_STARTED
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would too
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - our own arguments, no shell
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
    return CANNOT_BE_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
