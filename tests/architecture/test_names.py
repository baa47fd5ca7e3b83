"""What modules are called, and what product files may not speak of."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("gateway", "registry_sync", "deploy")
NAMELESS = frozenset(
    {"base", "common", "constants", "core", "helpers", "manager", "misc", "types", "utils"}
)
"""Names that say nothing of what is inside, and so take in everything."""
TOP_LEVEL = frozenset(
    {
        "gateway", "registry_sync", "tests", "deploy", "docs", "pyproject.toml",
        "README.md", "Makefile", "CHANGELOG.md", "constraints.txt", "LICENSE",
    }
)  # fmt: skip
OF_ONE_MACHINE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|work)/\w|(?<!\w)issue #?\d+", re.IGNORECASE
)
NOT_PLAIN = re.compile(r"\b(?:no|some|every)body\b|\bwho(?:m|so)?ever\b|\bwish(?:es)?\b|; None: ")
"""Words that a sentence of the product does without."""
SECRETS = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY")


def _files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _modules() -> list[Path]:
    return [path for path in _files(*PRODUCT, "tests") if path.suffix == ".py"]


def test_the_modules_are_found() -> None:
    assert len(_modules()) > 40


def test_every_module_has_a_name_that_says_something() -> None:
    bad = [
        str(path.relative_to(ROOT))
        for path in _modules()
        if NAMELESS & {path.stem, *path.relative_to(ROOT).parent.parts}
    ]
    assert bad == []


@pytest.mark.parametrize("pattern", [OF_ONE_MACHINE, SECRETS], ids=["one machine", "secrets"])
def test_no_file_of_the_product_speaks_of_one_machine_or_holds_a_secret(
    pattern: re.Pattern[str],
) -> None:
    files = [*_files(*PRODUCT), *(ROOT / name for name in TOP_LEVEL if (ROOT / name).is_file())]
    found = []
    for path in files:
        text = path.read_text(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in pattern.finditer(text)]
    assert found == []


def test_the_top_level_is_what_the_design_fixed() -> None:
    shown = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    built = {name for name in shown if name.endswith(".egg-info") or name in {"build", "dist"}}
    assert shown - built - TOP_LEVEL == set()


def test_the_products_sentences_are_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {hit.group()}"
        for path in _files(*PRODUCT)
        if path.suffix == ".py"
        for hit in NOT_PLAIN.finditer(path.read_text())
    ]
    assert found == []
