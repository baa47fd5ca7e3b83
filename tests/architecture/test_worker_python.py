"""The worker package runs on the oldest Python that models may bring: 3.10."""

import ast
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[2] / "gateway" / "worker"
OLDEST = (3, 10)
NEWER_MODULES = {"tomllib"}
NEWER_NAMES = {
    *("StrEnum", "ReprEnum", "nonmember"),
    *("Self", "Never", "LiteralString", "assert_never", "assert_type", "reveal_type"),
    *("Required", "NotRequired", "Unpack", "TypeVarTuple", "override", "TaskGroup", "Runner"),
    *("UTC", "chdir", "batched", "ExceptionGroup", "BaseExceptionGroup", "file_digest"),
}
"""What the standard library has since 3.11 and a worker might be tempted to use."""


@pytest.mark.parametrize("file", sorted(WORKER.rglob("*.py")), ids=lambda file: file.name)
def test_it_needs_nothing_newer(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=OLDEST)
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            named |= {alias.name for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            named.add(f"{node.value.id}.{node.attr}")
    newer = {one for one in named if one.rpartition(".")[2] in NEWER_NAMES}
    assert not newer | (named & NEWER_MODULES)
