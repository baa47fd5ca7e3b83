"""Sabotages that lived once, or that must never live: each with the text that it replaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutants.operators import Mutant, functions
from tests.mutants.workshop import module_file


class Named(NamedTuple):
    """A sabotage by name. ``find`` is in its module once."""

    name: str
    module: str
    find: str
    replace: str


_RESOLUTION = "gateway.serving.resolution"
_REPLICA = "gateway.serving.replica.replica"
_ADMISSION = "gateway.serving.admission"
_FILES = "gateway.system.files.atomic_files"
_LOG = "gateway.system.files.change_log"
_FAST = "gateway.worker.loading.proofs.fast_path"
_BATCH = "gateway.worker.batching"
_PLAN = "registry_sync.planning.plan"
NAMED = (
    Named(
        "path and header that disagree are not refused",
        _RESOLUTION,
        "if (other.version, other.digest) != (route.version, route.digest):",
        "if False:",
    ),
    Named(
        "a header beside a path is not resolved",
        _RESOLUTION,
        "if call.second_selector is not None and call.second_selector != call.selector:",
        "if False:",
    ),
    Named(
        "path and header that agree by another word are refused",
        _RESOLUTION,
        "(other.version, other.digest) != (route.version, route.digest)",
        "call.second_selector != call.selector",
    ),
    Named(
        "delivered requests are executed twice",
        _REPLICA,
        "delivered=frame_id not in unsent and not proving",
        "delivered=False",
    ),
    Named(
        "what was not sent is given to no other worker",
        _REPLICA,
        "delivered=frame_id not in unsent and not proving",
        "delivered=not proving",
    ),
    Named(
        "what waited for a proof is given to no other worker",
        _REPLICA,
        "delivered=frame_id not in unsent and not proving",
        "delivered=frame_id not in unsent",
    ),
    Named(
        "bytes in flight leak in a replica",
        _REPLICA,
        "self._in_flight_bytes -= request.body_bytes",
        "pass",
    ),
    Named(
        "bytes in flight leak in the gateway",
        _ADMISSION,
        "self.in_flight_bytes -= body_bytes",
        "pass",
    ),
    Named(
        "bytes that are held leak",
        _ADMISSION,
        "self._admission.in_flight_bytes -= self._bytes",
        "pass",
    ),
    Named(
        "a worker that ignores STOP is never killed",
        _REPLICA,
        "self._loop.call_later(_STOP_GRACE_S, self.kill, reason)",
        "pass",
    ),
    Named(
        "a worker that has hung up is never killed",
        _REPLICA,
        "asyncio.get_running_loop().call_later(_EXIT_AFTER_EOF_S, self.kill, self.end_reason)",
        "pass",
    ),
    Named("a file of the node is not fsynced", _FILES, "os.fsync(file.fileno())", "pass"),
    Named("the folder of a file is not fsynced", _FILES, "sync_folder(path.parent)", "pass"),
    Named("no folder is fsynced", _FILES, "os.fsync(descriptor)", "pass"),
    Named("a change of the table is not fsynced", _LOG, "os.fdatasync(self._descriptor)", "pass"),
    Named(
        "a new file of changes has no lasting name", _LOG, "sync_folder(self._path.parent)", "pass"
    ),
    Named(
        "a file of an artifact is not fsynced",
        "registry_sync.artifacts.store",
        "os.fsync(descriptor)",
        "pass",
    ),
    Named(
        "a folder of an artifact is not fsynced",
        "registry_sync.artifacts.store",
        "sync_folder(Path(root))",
        "pass",
    ),
    Named(
        "a file of an artifact stays writable",
        "registry_sync.artifacts.store",
        "os.fchmod(descriptor, _READ_ONLY_FILE)",
        "pass",
    ),
    Named(
        "an alias follows to a quarantined version",
        "registry_sync.planning.snapshot",
        "if is_quarantined(listed, self.ledger) or listed.stamp_problem:",
        "if listed.stamp_problem:",
    ),
    Named(
        "a quarantined version is fetched for a caller",
        _PLAN,
        "listed.stamp_problem or is_quarantined(listed, snapshot.ledger)",
        "listed.stamp_problem",
    ),
    Named(
        "a quarantined version is fetched to restore it",
        _PLAN,
        "or is_quarantined(listed, snapshot.ledger):\n        return False",
        "or False:\n        return False",
    ),
    Named(
        "a quarantined version is pinned",
        "registry_sync.operations.decisions.pinning",
        "if listed is not None and not snapshot.admissible(listed):",
        "if False:",
    ),
    Named(
        "held targets are swept",
        "registry_sync.planning.retention",
        '"held or pinned": {one.target_digest for one in ledger.holds.values()},',
        '"held or pinned": set(),',
    ),
    Named(
        "what an alias left is swept",
        "registry_sync.planning.retention",
        "if one.previous_digest and one.since > since",
        "if False",
    ),
    Named(
        "the fast path is not compared",
        _FAST,
        "if not identical(bare, output):",
        "if False:",
    ),
    Named(
        "the fast path is not compared on other numbers",
        _FAST,
        "if not (yield from _are_equal(direct, answered[proved:], identical)):",
        "if False:",
    ),
    Named(
        "a batch is one row over its bound",
        _BATCH,
        "more_rows <= limits.rows",
        "more_rows <= limits.rows + 1",
    ),
    Named(
        "a batch is one byte over its bound",
        _BATCH,
        "more_bytes <= limits.bytes",
        "more_bytes <= limits.bytes + 1",
    ),
    Named("requests that differ are joined", _BATCH, "fits and candidate.key == first.key", "fits"),
)


class UnmatchedError(Exception):
    """The text of a sabotage is not in its module, or not once."""


def named(root: Path) -> Iterator[Mutant]:
    """Yield all sabotages that have a name.

    Raises:
        UnmatchedError: The code has changed: change the sabotage, too.
    """
    for one in NAMED:
        code = (root / module_file(one.module)).read_text()
        if code.count(one.find) != 1:
            raise UnmatchedError(
                f"{one.name!r}: {one.module} must have {one.find!r} once, not "
                f"{code.count(one.find)} times; change tests/mutants/named.py"
            )
        start = len(code.partition(one.find)[0].encode())
        end = start + len(one.find.encode())
        function = _around(code, code[: code.index(one.find)].count("\n") + 1)
        yield Mutant(one.module, function, one.name, 0, start, end, one.replace, code.encode())


def _around(code: str, line: int) -> str:
    """Return the innermost function that has a line."""
    found = [
        (node.lineno, name)
        for name, node in functions(code)
        if node.lineno <= line <= (node.end_lineno or line)
    ]
    return max(found)[1]
