"""Each call of the gateway into the system is made to fail by a test, or is excused with a reason.

`tests/acceptance/test_every_call_may_fail.py` lets them fail in a gateway that works.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.acceptance.hooks import failing_calls

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "gateway"
SYSTEM = {
    *("fcntl", "multiprocessing", "os", "resource", "select", "shutil", "signal", "socket"),
    *("subprocess", "tempfile", "threading"),
}
"""Modules whose functions are calls into the system."""
PATHS = {
    "chmod": "os.chmod",
    "is_dir": "os.stat",
    "is_symlink": "os.lstat",
    "iterdir": "os.listdir",
    "lstat": "os.lstat",
    "mkdir": "os.mkdir",
    "read_bytes": "open",
    "read_text": "open",
    "readlink": "os.readlink",
    "rename": "os.rename",
    "rmdir": "os.rmdir",
    "symlink_to": "os.symlink",
    "touch": "os.open",
    "unlink": "os.unlink",
    "write_bytes": "open",
    "write_text": "open",
}
"""Methods of a path, and what each of them calls."""
MADE_OF = {
    "multiprocessing.Pipe": {"os.pipe"},
    "os.path.lexists": {"os.lstat"},
    "shutil.rmtree": {"os.scandir", "os.unlink", "os.lstat"},
    "socket.socket": {"socket"},
    "subprocess.Popen": {"exec", "os.pipe", "os.close"},
    "threading.Thread": {"thread"},
}
"""Calls that fail where another one does."""
_AT_THE_START = "made once, before the gateway serves: the start fails, and says why"
_FROM_MEMORY = "answered from memory: it does not fail"
EXCUSED = {
    "fcntl.flock": _AT_THE_START,
    "multiprocessing.forkserver": "a module",
    "multiprocessing.get_context": _FROM_MEMORY,
    "os.access": "asked only where no folder takes a temporary file, and False is its failure",
    "os.chmod": _AT_THE_START,
    "os.environ": _FROM_MEMORY,
    "os.fsencode": _FROM_MEMORY,
    "os.geteuid": _FROM_MEMORY,
    "os.getpid": _FROM_MEMORY,
    "os.rmdir": "made where a start fails: an empty folder stays, and the start says why it failed",
    "os.sched_getaffinity": _AT_THE_START,
    "os.sysconf": _FROM_MEMORY,
    "os.urandom": "the kernel never refuses it once it has started",
    "resource.getrlimit": _AT_THE_START,
    "resource.setrlimit": _AT_THE_START,
    "os.pathsep": "a constant",
    "select.select": "asked only where nobody reads standard error, by the log's own thread",
    "shutil.get_terminal_size": "asked by --help only",
    "signal.Signals": _FROM_MEMORY,
    "tempfile.gettempdir": "remembered after the first start of the forkserver",
    "tempfile.tempdir": "a variable",
    "threading.ExceptHookArgs": "a type",
    "threading.Lock": _FROM_MEMORY,
    "threading.RLock": _FROM_MEMORY,
    "threading.excepthook": "a variable",
}
"""What is not made to fail, and why."""


def _files() -> list[Path]:
    """Return the gateway's own modules, without programs that become processes of their own."""
    others = (GATEWAY / "worker", GATEWAY / "system" / "processes" / "lifeline.py")
    return [
        path
        for path in GATEWAY.rglob("*.py")
        if not any(path.is_relative_to(other) for other in others)
    ]


def _calls(tree: ast.AST) -> dict[str, int]:
    """Return the names of what a module may call, each with a line that has it."""
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        module, *names = ast.unparse(node).split(".")
        if module in SYSTEM and all(name.isidentifier() for name in names):
            parts = names[:2] if names[0] == "path" else names[:1]
            found[".".join([module, *parts])] = node.lineno
        elif node.attr in PATHS:
            found[PATHS[node.attr]] = node.lineno
    return found


def _is_one(name: str) -> bool:
    """Whether a name is a call, not a constant or only the way to another name."""
    return not name.rpartition(".")[2].lstrip("_").isupper() and name != "os.path"


@pytest.fixture(scope="module")
def called() -> dict[str, list[str]]:
    """Each call of the gateway, and where it is made."""
    found = defaultdict(list)
    for path in _files():
        for name, line in _calls(ast.parse(path.read_text())).items():
            if _is_one(name):
                found[name].append(f"{path.relative_to(ROOT)}:{line}")
    return dict(found)


def test_each_call_fails_in_a_test_or_is_excused(called: dict[str, list[str]]) -> None:
    wrapped = {name for name, _, _ in failing_calls.GATEWAY}
    missing = {
        name: places
        for name, places in called.items()
        if name not in EXCUSED and not MADE_OF.get(name, {name}) <= wrapped
    }
    assert not missing, "wrap these in tests/acceptance/hooks/failing_calls.py, or excuse them here"


def test_no_excuse_is_left_over(called: dict[str, list[str]]) -> None:
    wrapped = {name for name, _, _ in failing_calls.GATEWAY}
    assert EXCUSED.keys() <= called.keys()
    assert MADE_OF.keys() <= called.keys()
    assert not EXCUSED.keys() & wrapped


def test_calls_are_made_by_their_whole_names() -> None:
    """A name that was imported out of its module would not be seen here, nor made to fail."""
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in SYSTEM - {"multiprocessing"}, path
            elif isinstance(node, ast.Import):
                assert not [one for one in node.names if one.name in SYSTEM and one.asname], path
