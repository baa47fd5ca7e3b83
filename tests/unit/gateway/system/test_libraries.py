"""The mark of what is installed: it changes with a library, and with nothing else."""

from pathlib import Path

from gateway.system.libraries import mark_of_libraries


def installed(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.dist-info").mkdir(parents=True)
        (folder / name.split("-", maxsplit=1)[0]).mkdir()
    return folder


def test_mark_is_equal_for_equal_libraries(tmp_path: Path) -> None:
    here = installed(tmp_path / "here", "numpy-2.0", "pandas-3.0")
    there = installed(tmp_path / "there", "pandas-3.0", "numpy-2.0")
    (there / "__pycache__").mkdir()
    missing = str(tmp_path / "missing")
    before = mark_of_libraries("3.11.7", [str(here)])
    assert before == mark_of_libraries("3.11.7", [missing, str(there), str(there)])
    assert len(before) == 16


def test_mark_differs_for_another_library_or_interpreter(tmp_path: Path) -> None:
    folder = installed(tmp_path / "here", "numpy-2.0")
    seen = {mark_of_libraries("3.11.7", [str(folder)]), mark_of_libraries("3.12.0", [str(folder)])}
    (folder / "numpy-2.0.dist-info").rename(folder / "numpy-2.0+cpu.dist-info")
    seen.add(mark_of_libraries("3.11.7", [str(folder)]))
    other = installed(tmp_path / "other", "skops-0.11")
    seen.add(mark_of_libraries("3.11.7", [str(folder), str(other)]))
    assert len(seen) == 4
