"""Start a worker under a model's own interpreter: ``python -I __runner__.py CHANNEL LIFELINE``.

The arguments are inherited file descriptors. ``-I`` keeps the gateway's folder off ``sys.path``,
where its modules would shadow the model's; a finder finds only ``gateway`` and ``gateway.worker``.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import socket
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parent.parent.parent
_OURS = "gateway.worker"


class WorkerFinder:
    """Finds ``gateway``, ``gateway.worker`` and its modules; no other module of the gateway."""

    @classmethod
    def find_spec(
        cls,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG003  # the finder's interface
        target: ModuleType | None = None,  # noqa: ARG003  # as above
    ) -> ModuleSpec | None:
        """Return the spec of a module of the worker, or None for a module of others.

        Raises:
            ModuleNotFoundError: The module belongs to the gateway, but not to the worker.
        """
        if name not in ("gateway", _OURS) and not name.startswith(_OURS + "."):
            if name.startswith("gateway."):
                raise ModuleNotFoundError(f"{name} is not part of the worker", name=name)
            return None
        folder = str(_ROOT.joinpath(*name.split(".")[:-1]))
        return importlib.machinery.PathFinder.find_spec(name, [folder])


def main(arguments: Sequence[str]) -> None:
    """Become a worker on the two descriptors named by ``arguments``."""
    channel, lifeline = map(int, arguments)
    sys.meta_path.insert(0, WorkerFinder)  # type: ignore[arg-type,unused-ignore]  # a class finds
    from gateway.worker import entry

    entry.run(socket.socket(fileno=channel), Connection(lifeline, writable=False))


if __name__ == "__main__":
    main(sys.argv[1:])
