"""Work that comes behind what serves: bytes that are moved, hashed or built, on the same cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform

_NICER_BY = 10
"""As a worker that loads: a tenth of the share of a neighbour that wants the same core."""
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_ONE_THREAD = 1
_IO_LOWEST = (2 << 13) | 7


def step_behind() -> None:
    """Lower the priority of the calling thread, for good, and of all that it starts. Never fails.

    Where the kernel groups sessions, that counts among the processes of the control plane's own.
    """
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, nice + _NICER_BY)  # of this thread, on Linux
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(number, _ONE_THREAD, 0, _IO_LOWEST)
