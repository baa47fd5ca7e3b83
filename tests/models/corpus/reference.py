"""MLflow's own scoring servers: ``python -m tests.models.corpus.reference MODULE…``.

Reads the folder of a model from each line of standard input, and answers with one line of JSON:
the port on which MLflow's application serves it, or why it does not. An empty line ends the server
of the line before. Each server is a process of its own, forked from this one, which has the named
modules imported: what takes a server seconds to begin with takes them once.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import traceback
import warnings


def serve(folder: str, channel: int) -> None:
    """Serve a model as ``mlflow models serve`` does, until killed."""
    os.setsid()
    os.dup2(2, 1)  # what a model prints is no answer of ours
    try:
        from mlflow.pyfunc import scoring_server

        os.environ[scoring_server._SERVER_MODEL_PATH] = folder
        os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = "60"
        import uvicorn

        app = importlib.import_module("mlflow.pyfunc.scoring_server.app").app
        door = socket.socket()
        door.bind(("127.0.0.1", 0))
        door.listen()
    except BaseException:  # noqa: BLE001  # whatever a model raises is told
        os.write(channel, json.dumps({"failure": traceback.format_exc()}).encode())
        os._exit(1)
    os.write(channel, json.dumps({"port": door.getsockname()[1]}).encode())
    os.close(channel)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[door])


def start(folder: str) -> tuple[int, bytes]:
    """Start a server; return its process and what it says."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        serve(folder, theirs)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        return child, said.read()


def stop(child: int) -> None:
    """End a server with all that it started."""
    for end in (os.killpg, os.kill):
        try:
            end(child, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.waitpid(child, 0)


def main(*modules: str) -> None:
    """Serve what the lines of standard input name, one at a time."""
    warnings.simplefilter("ignore")
    for module in ("mlflow.pyfunc.scoring_server", "uvicorn", "fastapi", "pandas", *modules):
        importlib.import_module(module)
    child = None
    for line in sys.stdin:
        if child is not None:
            stop(child)
            child = None
        if folder := line.strip():
            child, said = start(folder)
            sys.stdout.write(f"{said.decode() or json.dumps({'failure': 'it ended'})}\n")
            sys.stdout.flush()
    if child is not None:
        stop(child)


if __name__ == "__main__":
    main(*sys.argv[1:])
