"""Run a worker: confine, greet, load, serve, end. Both launchers call it."""

from __future__ import annotations

import faulthandler
import os
import platform
import socket
import sys
import traceback
from multiprocessing.connection import Connection as PipeEnd

from gateway.worker.process import confinement, priority
from gateway.worker.protocol.frames import FrameError
from gateway.worker.protocol.messages import Hello, Kind, Load, decode_header


def run(channel: socket.socket, lifeline: PipeEnd, output: PipeEnd | None = None) -> None:
    """Run a worker. Never returns: at the end it kills its own process group, itself included.

    Args:
        channel: The worker's end of a socket pair. The gateway sends LOAD first.
        lifeline: The read end of a pipe whose write end only the gateway holds.
        output: The target of standard output and error, or None for the present standard error.
    """
    worker = os.getpid()
    try:
        confinement.confine(lifeline, output)
        confinement.leave_the_forkserver()
        confinement.keep_from_children(channel, lifeline)
        faulthandler.enable(all_threads=False)  # a fault of the model's code says where it was
        channel.setblocking(True)
        _serve(channel)
    except BaseException as error:  # noqa: BLE001  # the worker's own error: errors of models are answered
        # The message is left out: it may hold a caller's data.
        frames = "".join(traceback.format_tb(error.__traceback__))
        sys.stderr.write(f"worker error: {type(error).__name__}\n{frames}")
    finally:
        if os.getpid() != worker:  # a child that the model forked and let return here
            os._exit(0)
        # No exit hook of a library delays the end, and no child of the model survives it. The
        # kernel takes a tenth of a second to free a gigabyte, at the priority of this process.
        priority.lower()
        confinement.end_group()


def _serve(channel: socket.socket) -> None:
    from gateway.worker import batching, served_model, serving_loop
    from gateway.worker.loading import load
    from gateway.worker.process import warning_filter
    from gateway.worker.protocol import connection as protocol

    connection = protocol.Connection(channel)
    try:
        connection.send([(0, Hello(os.getpid(), platform.python_version()), b"")])
        frame, *received = connection.receive(wait=True)
        if frame.kind != Kind.LOAD:
            raise FrameError("the first frame is not LOAD")
        order = decode_header(Load, frame.header)
        lowered = priority.lower()
        said = warning_filter.WarningLog()
        said.install()
        try:
            loaded = load.load(order, lambda message: connection.send([(0, message, b"")]))
        except protocol.ConnectionEndedError:
            return
        except load.LoadFailedError as error:
            connection.send([(0, error.report, b"")])
            return
        except (Exception, SystemExit) as error:  # noqa: BLE001  # models may raise anything
            served_model.log_without_data(error)
            connection.send([(0, load.failed_unforeseen(error), b"")])
            return
        priority.restore(lowered)
        said.serving = True
        connection.send([(0, loaded.report, b"")])
        limits = batching.BatchLimits(order.max_batch_rows, order.max_batch_bytes)
        serving_loop.ServingLoop(
            connection, loaded, limits, received, max_answer_bytes=order.max_answer_bytes
        ).run()
    except protocol.ConnectionEndedError:
        return
