"""What the acceptance tests may see of, and do to, a product process that is running.

Python imports this module at the start of every process whose ``PYTHONPATH`` names this folder:
gateway, control plane, forkserver and, by fork, every worker. It changes nothing until asked:

* SIGUSR1: write what the process has imported to ``$ACCEPTANCE_DUMPS/<pid>.json``.
* ``ACCEPTANCE_MAY_DIE=1``: once a file ``$ACCEPTANCE_DUMPS/die_at`` says ``before:<file name>`` or
  ``after:<file name>``, the process kills itself as by ``kill -9`` just before, or just after, the
  rename that puts the named file in place; or the write that adds to it, and brings it to disk.
* ``ACCEPTANCE_WITHOUT=<package>``: to this process the package is not installed.
* ``ACCEPTANCE_FAILING=<file>``: in the gateway and its forkserver, the call that the file names
  fails; see ``failing_calls`` beside this module.
* ``ACCEPTANCE_RAISES=<module>:<class>.<method>``: the method raises, with all of the environment
  in a local variable.
* ``ACCEPTANCE_CONSTANTS=<JSON object>``: these constants of ``gateway.settings``, or of the
  ``module`` that it names, have these values.
"""

import importlib
import json
import os
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


def _die_at(moment):
    order = Path(os.environ["ACCEPTANCE_DUMPS"], "die_at")
    if order.exists() and order.read_text() == moment:
        os.kill(os.getpid(), signal.SIGKILL)


def _may_die_at_renames():
    rename = os.replace

    def replace(source, target, **options):
        _die_at(f"before:{Path(target).name}")
        rename(source, target, **options)
        _die_at(f"after:{Path(target).name}")

    os.replace = replace  # type: ignore[assignment]  # a test's knife, not a library


def _may_die_at_additions():
    opened, to_disk = os.open, os.fdatasync

    def open_(path, flags, *more, **options):
        if flags & os.O_APPEND:
            _die_at(f"before:{Path(os.fsdecode(path)).name}")
        return opened(path, flags, *more, **options)

    def fdatasync(descriptor):
        to_disk(descriptor)
        _die_at(f"after:{Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    os.open, os.fdatasync = open_, fdatasync


def _hide(package):
    class Others(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            hidden = name.partition(".")[0] == package
            return None if hidden else super().find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Others


def _let_calls_fail(path):
    # Only where it is asked for: it imports what the gateway may not have.
    failing_calls = importlib.import_module("failing_calls")
    if sys.orig_argv[-2:] == ["-m", "gateway"]:
        failing_calls.watch(path, failing_calls.GATEWAY)
    elif any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
        failing_calls.watch(path, failing_calls.FORKSERVER)


def _let_raise(module, owner, method):
    def raising(*_arguments, **_options):
        secrets = dict(os.environ)
        raise RuntimeError(f"it was told to raise, with {len(secrets)} variables")

    _once_imported(module, lambda loaded: setattr(getattr(loaded, owner), method, raising))


def _once_imported(module, change):
    class Patched(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            spec = super().find_spec(name, path, target) if name == module else None
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def exec_module(loaded):
                    execute(loaded)
                    change(loaded)

                spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # as above
            return spec

    sys.meta_path.insert(0, Patched)


def _set_constants(values):
    module = values.pop("module", "gateway.settings")

    def change(settings):
        for name, value in values.items():
            if not hasattr(settings, name):
                raise AttributeError(f"{module} has no constant {name}")
            setattr(settings, name, value)

    _once_imported(module, change)


if os.environ.get("ACCEPTANCE_DUMPS"):
    signal.signal(signal.SIGUSR1, _dump_modules)
if os.environ.get("ACCEPTANCE_MAY_DIE"):
    _may_die_at_renames()
    _may_die_at_additions()
if os.environ.get("ACCEPTANCE_WITHOUT"):
    _hide(os.environ["ACCEPTANCE_WITHOUT"])
if os.environ.get("ACCEPTANCE_RAISES"):
    _module, _, _function = os.environ["ACCEPTANCE_RAISES"].partition(":")
    _let_raise(_module, *_function.split("."))
if os.environ.get("ACCEPTANCE_CONSTANTS"):
    _set_constants(json.loads(os.environ["ACCEPTANCE_CONSTANTS"]))
if os.environ.get("ACCEPTANCE_FAILING"):
    _let_calls_fail(os.environ["ACCEPTANCE_FAILING"])
