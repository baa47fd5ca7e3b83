"""Make calls into the system fail inside a running process, one kind at a time, while it works.

A test writes the name of a call and an error into a file of `SIZE` bytes that the process has
mapped; from that moment on every such call from Python raises, until the test clears it. The
process counts there how often it has. `tests.acceptance.test_every_call_may_fail` is the test's
side, and `tests/architecture/test_calls_that_may_fail.py` looks that no call is missing here.
"""

import _posixsubprocess
import builtins
import errno
import io
import mmap
import os
import signal
import socket
import struct
import subprocess
import threading

NAME = struct.Struct("32sI")
FIRED = struct.Struct("I")
SIZE = 64
_FIRED_AT = 40

_OS = ("open", "close", "dup", "read", "write", "fsync", "fdatasync", "ftruncate", "fstat")
_OF_NAMES = ("replace", "rename", "link", "unlink", "stat", "lstat", "utime")
_OF_FOLDERS = ("mkdir", "listdir", "scandir")
_OF_PROCESSES = ("pipe", "pidfd_open", "kill", "killpg", "getsid", "set_blocking")
GATEWAY = [
    *((f"os.{name}", os, name) for name in (*_OS, *_OF_NAMES, *_OF_FOLDERS, *_OF_PROCESSES)),
    ("open", builtins, "open"),
    ("open", io, "open"),
    ("signal.pidfd_send_signal", signal, "pidfd_send_signal"),
    ("socket", socket.socket, "__init__"),
    ("socket.socketpair", socket, "socketpair"),
    *((f"socket.{name}", socket.socket, name) for name in ("recv", "sendmsg", "connect")),
    ("thread", threading, "_start_new_thread"),
    ("exec", subprocess, "_fork_exec"),
    ("exec", _posixsubprocess, "fork_exec"),
]
"""What may fail in the gateway's process: the call's name for the test, its holder, its name."""
FORKSERVER = [("fork", os, "fork")]
ENDS_FIRST = {"os.close"}
"""Calls that do their work and then fail: the kernel closes a descriptor whatever it answers."""


def _asks_the_system(name, arguments, named):
    """Whether a call has to ask the system: no socket is made around a descriptor that is there."""
    return name != "socket" or not (named.get("fileno") is not None or len(arguments) > 4)


def watch(path, calls):
    """Let these calls fail when the file says so; in this process, not in those that it forks."""
    descriptor = os.open(path, os.O_RDWR)
    armed = mmap.mmap(descriptor, SIZE)
    os.close(descriptor)
    own = os.getpid()
    getpid = os.getpid

    def wrap(name, call):
        key = name.encode().ljust(32, b"\0")

        def is_to_fail(arguments, named):
            is_armed = armed[0] and armed[:32] == key and getpid() == own
            return is_armed and _asks_the_system(name, arguments, named)

        def called(*arguments, **named):
            if not is_to_fail(arguments, named):
                return call(*arguments, **named)
            _, number = NAME.unpack_from(armed)
            FIRED.pack_into(armed, _FIRED_AT, FIRED.unpack_from(armed, _FIRED_AT)[0] + 1)
            if name in ENDS_FIRST:
                call(*arguments, **named)
            if name == "thread":
                raise RuntimeError("can't start new thread")
            raise OSError(number, os.strerror(number))

        return called

    for name, holder, attribute in calls:
        setattr(holder, attribute, wrap(name, getattr(holder, attribute)))


def fired(content):
    """Return how often the armed call has failed."""
    return FIRED.unpack_from(content, _FIRED_AT)[0]


def order(name, number=errno.EMFILE):
    """Return the content of the file that arms a call."""
    return NAME.pack(name.encode(), number).ljust(SIZE, b"\0")
