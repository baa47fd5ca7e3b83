"""The glossary is the contract: the nouns of the product's public names are in it.

Names are those of classes and modules, fields of bodies and settings, metrics, and log events.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import REGISTRY

import registry_sync.system.metrics  # noqa: F401  # so that they are registered
from gateway.observability import Telemetry

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
ROW = re.compile(r"^\| (?!word \|)(?P<words>[^|]*[a-z][^|]*) \|", re.MULTILINE)
LIST = re.compile(r"^[^|\n]*: (?P<words>[a-z0-9, ]+)\.$", re.MULTILINE)
WORD = re.compile(r"[A-Z][a-z0-9]+|[A-Z]+(?![a-z])")
EVENT = re.compile(r'log\.\w+\(\s*"(?P<name>[a-z_]+)\.[a-z_]+"')
BODY = re.compile(r"Base(?:Model|Settings)|\w*Body|\w+Answer")
UNITS = {"s", "at", "bytes", "seconds", "total"}
NO_NOUNS = {
    "active", "aside", "at", "by", "complete", "cooperative", "finite", "for", "frozen", "held",
    "idle", "in", "inactive", "instead", "keep", "of", "out", "previous", "replaces", "since",
    "stable", "up", "was", "what", "why", "written",
}  # fmt: skip
"""Last words of fields and modules that are no nouns, as are those in -ed and -ing."""


def glossary(text: str) -> set[str]:
    """Return the last word of each term of a glossary."""
    cells = [found["words"] for found in (*ROW.finditer(text), *LIST.finditer(text))]
    return {term.split()[-1] for cell in cells for term in cell.split(",") if term.split()}


def nouns_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield names and their nouns: public classes, fields of bodies, and log events."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, WORD.findall(node.name)[-1].lower()
            if any(BODY.fullmatch(ast.unparse(base)) for base in node.bases):
                yield from ((f"{node.name}.{name}", last_word(name)) for name in fields_of(node))
    for found in EVENT.finditer(source):
        yield found["name"], last_word(found["name"])


def of_metrics() -> Iterator[tuple[str, str]]:
    """Yield the name and the noun of each metric of both planes."""
    for registry in (Telemetry().registry, REGISTRY):
        for metric in registry.collect():
            if metric.name.startswith(("gateway", "registry_sync")):
                yield metric.name, last_word(metric.name)


def of_module(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the noun of a module or, for its door, of a package."""
    name = path.parent.name if path.stem == "__init__" else path.stem
    if not name.startswith("__"):
        yield name, last_word(name)


def fields_of(body: ast.ClassDef) -> Iterator[str]:
    """Yield the names of the fields of a class."""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def last_word(name: str) -> str:
    """Return the last word of a name in snake case, without its unit."""
    words = name.split("_")
    while len(words) > 1 and words[-1] in UNITS:
        words.pop()
    return words[-1]


def is_known(noun: str, known: set[str]) -> bool:
    """Whether a word, or what it is the plural of, is in the glossary, or is no noun."""
    if noun in NO_NOUNS or noun.endswith(("ed", "ing")):
        return True
    singular = {noun, noun.removesuffix("s"), noun.removesuffix("es")}
    return bool(singular & known) or f"{noun.removesuffix('ies')}y" in known


def test_the_noun_of_each_public_name_is_in_the_glossary() -> None:
    known = glossary(GLOSSARY.read_text())
    unknown = [
        f"{path.relative_to(ROOT)}: {name}"
        for plane in ("gateway", "registry_sync")
        for path in sorted((ROOT / plane).rglob("*.py"))
        if "migrations" not in path.parts  # their names are Alembic's
        for name, noun in (*of_module(path), *nouns_of(path.read_text()))
        if not is_known(noun, known)
    ]
    assert not unknown, "these nouns are not in docs/glossary.md:\n" + "\n".join(unknown)


def test_the_noun_of_each_metric_is_in_the_glossary() -> None:
    known, metrics = glossary(GLOSSARY.read_text()), dict(of_metrics())
    assert len(metrics) > 10
    assert [name for name, noun in metrics.items() if not is_known(noun, known)] == []


def test_a_noun_that_is_not_there_is_found() -> None:
    known = glossary("| word | meaning |\n|---|---|\n| route table, policy | … |\n\nOther: cup.\n")
    assert known == {"table", "policy", "cup"}
    assert [is_known(noun, known) for noun in ("tables", "policies", "cup")] == [True] * 3
    named = """
class FancyManager(Body):
    cup_bytes: int
    stamped: bool

_log.info("cup.broken")
_log.info("saucer.broken")
"""
    found = {name: is_known(noun, known) for name, noun in nouns_of(named)}
    assert [name for name, known in found.items() if not known] == ["FancyManager", "saucer"]
    assert {"FancyManager.cup_bytes", "FancyManager.stamped", "cup"} <= found.keys()
