"""Warnings of libraries: written seldom, and for the model as ever."""

import io
import warnings
from collections.abc import Iterator

import pytest

from gateway.worker.process.warning_filter import WarningLog


@pytest.fixture
def log() -> Iterator[WarningLog]:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log = WarningLog()
        log.install()
        yield log


def warn(text: str = "a caller's secret") -> None:
    warnings.warn(text, UserWarning, stacklevel=1)


def test_each_place_is_written_once(log: WarningLog, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(1000):
        warn()
    warnings.warn("another place", UserWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"warning: UserWarning in {__file__}, line ")
    assert lines[0].endswith(": a caller's secret")  # loading: there are no callers yet


def test_a_worker_that_serves_says_the_place_only(
    log: WarningLog, capsys: pytest.CaptureFixture[str]
) -> None:
    log.serving = True
    warn()
    told = capsys.readouterr().err
    assert "UserWarning" in told
    assert "secret" not in told


def test_so_many_places_and_no_more(log: WarningLog, capsys: pytest.CaptureFixture[str]) -> None:
    for line in range(1000):
        warnings.warn_explicit("x" * 10_000, UserWarning, "file.py", line)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100
    assert max(map(len, lines)) < 500


@pytest.mark.usefixtures("log")
def test_models_may_record_ignore_or_raise_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warn("recorded")
    assert [str(one.message) for one in caught] == ["recorded"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="raised"):
            warn("raised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warn("ignored")
    assert capsys.readouterr().err == ""
    to = io.StringIO()
    warnings.showwarning("whole", UserWarning, "file.py", 1, to)
    assert "whole" in to.getvalue()
    with warnings.catch_warnings():
        warn("shown after all that")
    assert "shown after all that" in capsys.readouterr().err
