"""A package is small, and is entered through the names in its ``__init__.py``."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLANES = ("gateway", "registry_sync")
MOST_ENTRIES = 12
WITHOUT_DOOR = "gateway.worker"
"""Each worker imports it: its ``__init__`` is to import nothing."""
SIDE_DOORS = frozenset(f"gateway.system.{name}" for name in ("files", "http1", "logs", "processes"))
"""Packages inside another that are entered by themselves: not all who need one need the others."""


def _modules() -> dict[str, Path]:
    """Return all modules of both planes; of a package, its door."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for plane in PLANES
        for path in (ROOT / plane).rglob("*.py")
    }


MODULES = _modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def _opened(path: Path) -> set[str]:
    """Return the names that a door takes from its modules."""
    return {
        one.asname or one.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    }


OPENED = {package: _opened(MODULES[package]) for package in PACKAGES}


def _imported(path: Path) -> Iterator[str]:
    """Yield every module of ours that a module imports, and every name that it takes from one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _is_past_a_door(importer: str, name: str) -> bool:
    """Whether an import enters a package that its importer is outside of, but not by its door."""
    package, _, last = name.rpartition(".")
    module = name if name in MODULES and last not in OPENED.get(package, ()) else package
    parts = module.split(".")
    around = [".".join(parts[:end]) for end in range(2, len(parts))]
    entered = [one for one in around if not f"{importer}.".startswith(f"{one}.")]
    if not entered or WITHOUT_DOOR in (module, *around):
        return False
    return not (module in SIDE_DOORS and len(entered) == 1)


def test_no_package_has_more_entries_than_a_reader_takes_in() -> None:
    for package in PACKAGES:
        folder = MODULES[package].parent
        entries = {
            path.name
            for path in folder.iterdir()
            if not path.name.startswith("__")
            and (path.suffix == ".py" or (path / "__init__.py").exists())
        }
        assert len(entries) <= MOST_ENTRIES, (package, sorted(entries))


def test_packages_are_entered_by_their_doors() -> None:
    past = [
        f"{importer} imports {name}"
        for importer, path in MODULES.items()
        for name in _imported(path)
        if name.split(".")[0] in PLANES and _is_past_a_door(importer, name)
    ]
    assert past == []


def test_an_import_past_a_door_is_seen() -> None:
    assert _is_past_a_door("gateway.bootstrap", "gateway.serving.residency.replica_pool.Lease")
    assert _is_past_a_door("gateway.bootstrap", "gateway.serving.residency.Lease")
    assert _is_past_a_door("registry_sync.bootstrap", "gateway.system.node_identity.Plane")
    assert not _is_past_a_door("gateway.bootstrap", "gateway.serving.Lease")
    assert not _is_past_a_door("gateway.serving.dispatch", "gateway.serving.residency.Lease")
    assert _is_past_a_door(
        "gateway.serving.dispatch", "gateway.serving.residency.replica_pool.Lease"
    )
    assert not _is_past_a_door(
        "gateway.serving.residency.replica_pool", "gateway.serving.replica.Replica"
    )
    assert not _is_past_a_door("registry_sync.bootstrap", "gateway.system.logs.redacted")


def test_a_door_says_what_it_opens() -> None:
    for package in PACKAGES:
        tree = ast.parse(MODULES[package].read_text())
        assert ast.get_docstring(tree), package
        taken = [
            one for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names
        ]
        assert all(one.asname == one.name for one in taken), package
