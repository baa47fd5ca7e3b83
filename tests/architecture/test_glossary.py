"""The glossary is the contract: the last word of each public class of the product is in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
ROW = re.compile(r"^\| (?!word \|)(?P<words>[^|]*[a-z][^|]*) \|", re.MULTILINE)
LIST = re.compile(r"^[^|\n]*: (?P<words>[a-z, ]+)\.$", re.MULTILINE)
WORD = re.compile(r"[A-Z][a-z0-9]+|[A-Z]+(?![a-z])")


def glossary(text: str) -> set[str]:
    """Return the last word of each term of a glossary."""
    cells = [found["words"] for found in (*ROW.finditer(text), *LIST.finditer(text))]
    return {term.split()[-1] for cell in cells for term in cell.split(",") if term.split()}


def nouns_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the last word of each public class of a module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, WORD.findall(node.name)[-1].lower()


def is_known(noun: str, known: set[str]) -> bool:
    """Whether a noun, or what it is the plural of, is in the glossary."""
    singular = {noun, noun.removesuffix("s"), noun.removesuffix("es")}
    return bool(singular & known) or f"{noun.removesuffix('ies')}y" in known


def test_the_noun_of_each_public_class_is_in_the_glossary() -> None:
    known = glossary(GLOSSARY.read_text())
    unknown = [
        f"{path.relative_to(ROOT)}: {name}"
        for plane in ("gateway", "registry_sync")
        for path in sorted((ROOT / plane).rglob("*.py"))
        for name, noun in nouns_of(path.read_text())
        if not is_known(noun, known)
    ]
    assert not unknown, "these nouns are not in docs/glossary.md:\n" + "\n".join(unknown)


def test_a_noun_that_is_not_there_is_found() -> None:
    known = glossary("| word | meaning |\n|---|---|\n| route table, policy | … |\n\nOther: cup.\n")
    assert known == {"table", "policy", "cup"}
    assert [is_known(noun, known) for noun in ("tables", "policies", "cup")] == [True] * 3
    assert not is_known(next(nouns_of("class FancyManager: ..."))[1], known)
