"""The unit tests of a module lie where the module lies.

``tests/unit/a/b/test_c.py`` tests ``a/b/c.py``. A module with several files of tests has a folder
of its name: ``tests/unit/a/b/c/test_*.py``.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"
PLANES = ("gateway", "registry_sync")


def _is_mirror(test: Path) -> bool:
    """Whether a file of tests, relative to ``tests/unit``, lies where its module does."""
    module = test.with_name(test.name.removeprefix("test_"))
    return (ROOT / module).is_file() or (ROOT / test.parent.with_suffix(".py")).is_file()


def test_unit_tests_mirror_the_tree() -> None:
    tests = [path for plane in PLANES for path in (UNIT / plane).rglob("test_*.py")]
    assert len(tests) > 100
    assert [str(one) for one in tests if not _is_mirror(one.relative_to(UNIT))] == []


def test_a_file_of_tests_without_a_module_is_seen() -> None:
    assert _is_mirror(Path("gateway/serving/test_admission.py"))
    assert _is_mirror(Path("gateway/serving/dispatch/test_counts.py"))
    assert not _is_mirror(Path("gateway/serving/test_counts.py"))
    assert not _is_mirror(Path("gateway/test_admission.py"))
