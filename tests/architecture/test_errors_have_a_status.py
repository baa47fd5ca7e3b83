"""The table from error class to HTTP status is complete, and the README shows all of it."""

import re
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import GatewayError
from gateway.http.problems import STATUS
from gateway.system.http1.refusals import RefusedError

README = Path(__file__).resolve().parents[2] / "README.md"
FAMILIES = {"RequestError", "CapacityError", "ServingError", "GatewayError"}


def _family(error: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield error
    for child in error.__subclasses__():
        yield from _family(child)


def test_every_error_that_reaches_a_caller_has_a_status() -> None:
    classes = set(_family(GatewayError))
    assert len(classes) > 15
    assert classes == set(STATUS)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [one.code for one in _family(GatewayError) if one.__name__ not in FAMILIES]
    assert sorted(codes) == sorted(set(codes))
    assert GatewayError.code not in codes


def test_every_code_is_in_the_readme_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \|([^|]*)\|", README.read_text(), re.MULTILINE)
    shown = {(status, code) for status, cell in rows for code in re.findall(r"`(\w+)`", cell)}
    expected = {(str(STATUS[one]), one.code) for one in STATUS if one.__name__ not in FAMILIES}
    expected |= {
        (str(one.status), one.code)
        for one in RefusedError.__subclasses__()
        if one.__module__ == RefusedError.__module__  # the control plane has some of its own
    }
    assert expected <= shown, expected - shown
