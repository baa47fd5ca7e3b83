"""A worker's program that lies, in place of a model's own interpreter.

Called as that is: ``python -I -B __runner__.py CHANNEL LIFELINE``. The lies are in the file beside
this program that has its name and ``.json``, so that each liar is a link of its own to the program;
without such a file it is honest, and answers the same for every row.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from gateway.worker.protocol.frames import Frame, FrameReader, pack
from gateway.worker.protocol.messages import (
    KIND_OF,
    Alive,
    Hello,
    Kind,
    Loaded,
    Message,
    Reply,
    Warming,
    encode_header,
)

START = 0
BODY = b'{"predictions": [1]}'


def main(channel: int, lies: Path) -> None:
    """Serve until the gateway is gone."""
    gateway = socket.socket(fileno=channel)
    script: dict[str, Any] = json.loads(lies.read_text()) if lies.exists() else {}
    moment = script.get("moment")
    if moment == START:  # in place of HELLO
        lie(gateway, 0, script)
    else:
        say(gateway, 0, Hello(os.getpid(), "3.11"))
    reader = FrameReader()
    while data := gateway.recv(1 << 16):
        for frame in reader.feed(data):
            if frame.kind == moment:
                lie(gateway, frame.id, script)
            answer(gateway, frame)


def lie(gateway: socket.socket, asked_id: int, script: dict[str, Any]) -> None:
    """Say what the script says, and end, hang, or go on as if nothing had been said."""
    for own_id, data, times in script["frames"]:
        said = bytearray.fromhex(data)
        if own_id:
            said[9:17] = asked_id.to_bytes(8, "big")
        gateway.sendall(said * times)
    if script["then"] == "hang":
        threading.Event().wait()
    if script["then"] == "end":
        os._exit(0)


def answer(gateway: socket.socket, frame: Frame) -> None:
    """Answer as a worker of ours does."""
    if frame.kind == Kind.LOAD:
        say(gateway, 0, Warming())
        say(gateway, 0, Loaded(1 << 20, {}, "passed", "alone", "", "pyfunc", ""))
    elif frame.kind == Kind.PREDICT:
        say(gateway, frame.id, Reply(1, 0.0, 0.0, 1), BODY)
    elif frame.kind == Kind.PROBE:
        say(gateway, 0, Alive(1 << 20, example_ok=True))
    elif frame.kind == Kind.STOP:
        os._exit(0)


def say(gateway: socket.socket, id_: int, message: Message, body: bytes = b"") -> None:
    gateway.sendall(b"".join(pack(KIND_OF[type(message)], id_, encode_header(message), body)))


if __name__ == "__main__":
    main(int(sys.argv[-2]), Path(f"{sys.argv[0]}.json"))
