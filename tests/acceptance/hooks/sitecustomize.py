"""What the acceptance tests may see of, and do to, a product process that is running.

Python imports this module at the start of every process whose ``PYTHONPATH`` names this folder:
gateway, control plane, forkserver and, by fork, every worker. It changes nothing until asked:

* SIGUSR1: write what the process has imported to ``$ACCEPTANCE_DUMPS/<pid>.json``.
* ``ACCEPTANCE_MAY_DIE=1``: once a file ``$ACCEPTANCE_DUMPS/die_at`` says ``before:<file name>`` or
  ``after:<file name>``, the process kills itself as by ``kill -9`` just before, or just after, the
  rename that puts the named file in place.
* ``ACCEPTANCE_WITHOUT=<package>``: to this process the package is not installed.
* ``ACCEPTANCE_UNREADABLE=<file name>,…``: the system does not let this process open such files.
* ``ACCEPTANCE_FULL_DISK=1``: no byte that this process writes into a file comes to disk.
"""

import errno
import os
import resource
import signal
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def _dump_modules(*_ignored):
    folder = os.environ.get("ACCEPTANCE_DUMPS")
    if not folder:
        return
    part = Path(folder, f"{os.getpid()}.part")
    part.write_text("\n".join(sorted(sys.modules)))
    part.rename(part.with_suffix(".txt"))


def _may_die_at_renames():
    rename = os.replace
    order = Path(os.environ["ACCEPTANCE_DUMPS"], "die_at")

    def replace(source, target, **options):
        die_at = order.read_text() if order.exists() else ""
        if die_at == f"before:{Path(target).name}":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **options)
        if die_at == f"after:{Path(target).name}":
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]  # a test's knife, not a library


def _hide(package):
    class Others(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            hidden = name.partition(".")[0] == package
            return None if hidden else super().find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Others


def _let_be_unreadable(names):
    opened = os.open

    def open_(path, flags, *more, **options):
        if not isinstance(path, int) and Path(os.fsdecode(path)).name in names:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, flags, *more, **options)

    os.open = open_


def _fill_disk():
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))


if os.environ.get("ACCEPTANCE_DUMPS"):
    signal.signal(signal.SIGUSR1, _dump_modules)
if os.environ.get("ACCEPTANCE_MAY_DIE"):
    _may_die_at_renames()
if os.environ.get("ACCEPTANCE_WITHOUT"):
    _hide(os.environ["ACCEPTANCE_WITHOUT"])
if os.environ.get("ACCEPTANCE_UNREADABLE"):
    _let_be_unreadable(os.environ["ACCEPTANCE_UNREADABLE"].split(","))
if os.environ.get("ACCEPTANCE_FULL_DISK"):
    _fill_disk()
