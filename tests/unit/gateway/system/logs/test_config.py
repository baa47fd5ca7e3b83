"""The log of either plane: no local variables, no secrets, bounded tracebacks, one line each."""

import json
import os
import sys
import textwrap
from typing import Any

import pytest

from tests.fakes.pythons import ended

CANARY = "c4nary-of-a-local"
GATEWAY = """
from gateway.system.logs import configure_logging
configure_logging(level="info", form="{form}")
"""
CONTROL_PLANE = """
from registry_sync import bootstrap
from registry_sync.settings import SyncSettings
bootstrap.begin_log(SyncSettings(log_format="{form}"))
"""
BOTH = pytest.mark.parametrize("plane", [GATEWAY, CONTROL_PLANE], ids=["gateway", "registry_sync"])
FORMS = pytest.mark.parametrize("form", ["json", "console"])


def logged(plane: str, form: str, code: str, **environ: str) -> str:
    program = plane.format(form=form) + textwrap.dedent(code)
    done = ended([sys.executable, "-c", program], env={**os.environ, **environ})
    return done.stdout + done.stderr


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


RAISING = """
import logging, structlog, threading, sys
def ask(depth):
    token = "c4nary" + "-of-a-local"
    headers = {"Authorization": f"Bearer {token}"}
    if depth:
        ask(depth - 1)
    raise ValueError("it said no") from OSError("refused")
"""


@BOTH
@FORMS
def test_a_traceback_has_no_local_variables(plane: str, form: str) -> None:
    text = logged(
        plane,
        form,
        RAISING
        + textwrap.dedent("""
        log = structlog.get_logger("x")
        try:
            ask(1)
        except ValueError:
            log.exception("ours.failed")
            logging.getLogger("library").exception("theirs failed")
        thread = threading.Thread(target=ask, args=(1,))
        thread.start()
        thread.join()
        ask(1)
        """),
    )

    for event in ("ours.failed", "theirs failed", "thread.crashed", "process.crashed"):
        assert event in text
    assert text.count("ValueError: it said no") == 4
    assert CANARY not in text
    if form == "json":
        assert len(lines(text)) == 4


def test_a_traceback_is_bounded() -> None:
    text = logged(
        GATEWAY,
        "json",
        """
        import structlog
        def one(depth):
            other(depth - 1) if depth else 1 / 0
        def other(depth):
            one(depth - 1) if depth else 1 / 0
        try:
            one(400)
        except ZeroDivisionError as error:
            structlog.get_logger("x").exception("ours.failed")
        try:
            raise ValueError("x" * 100_000)
        except ValueError:
            structlog.get_logger("x").exception("ours.failed")
        """,
    )
    deep, wide = lines(text)
    assert 20 < deep["exception"].count("\n") < 120
    assert "ZeroDivisionError" in deep["exception"]
    assert len(wide["exception"]) < 20_000


@FORMS
def test_a_line_has_no_secret_whoever_writes_it(form: str) -> None:
    text = logged(
        GATEWAY,
        form,
        """
        import logging, os, structlog, warnings
        from gateway.system.logs.redaction import remember, secrets_of
        remember(secrets_of(os.environ))
        class Odd:
            def __repr__(self):
                return "Odd(password='c4nary-of-a-local')"
        log = structlog.get_logger("x")
        log.info("a", reason="https://u:c4nary-of-a-local@host/x?sig=c4nary-of-a-local")
        log.info("b", headers={"Authorization": "Bearer c4nary-of-a-local"}, odd=Odd())
        log.info("c", list=["X-API-Key: c4nary-of-a-local"], raw="it said " + "c4nary-of-the-env")
        logging.getLogger("library").error("token=%s", "c4nary-of-a-local")
        warnings.warn("password=c4nary-of-a-local")
        log.info("d", error=ValueError("Bearer c4nary-of-a-local"))
        try:
            raise ValueError("Cookie: " + "c4nary-of-a-local")
        except ValueError:
            log.exception("e")
        """,
        AWS_SECRET_ACCESS_KEY="c4nary-of-the-env",
    )
    shown = [line for line in text.splitlines() if '"Cookie: " + ' not in line]  # a line of code
    assert "[redacted]" in text
    assert "c4nary" not in "\n".join(shown)


def test_on_a_terminal_nothing_moves_the_cursor() -> None:
    text = logged(
        GATEWAY,
        "console",
        r"""
        import logging, structlog
        name = "churn\x1b[2J\n2026 forged \u202eline\x9b"
        structlog.get_logger("x").info("a", model=name)
        logging.getLogger("library").error(name)
        try:
            raise ValueError(name)
        except ValueError:
            structlog.get_logger("x").exception("b")
        """,
    )
    assert text.count(r"churn\x1b[2J\n2026 forged \u202eline\x9b") >= 2
    assert [one for one in ("\x1b[2J", "\u202e", "\x9b") if one in text] == []


def test_json_keeps_the_types_of_its_fields() -> None:
    text = logged(
        GATEWAY,
        "json",
        """
        import structlog
        from pathlib import Path
        structlog.get_logger("x").info(
            "a", n=1, f=0.5, yes=True, no=None, deep={"a": [1, {"b": ()}]}, path=Path("/x")
        )
        """,
    )
    (line,) = lines(text)
    shown = {key: line[key] for key in ("n", "f", "yes", "no", "deep")}
    assert shown == {"n": 1, "f": 0.5, "yes": True, "no": None, "deep": {"a": [1, {"b": []}]}}
    assert "/x" in line["path"]


@BOTH
def test_each_line_names_its_component(plane: str) -> None:
    text = logged(
        plane,
        "json",
        """
        import logging, structlog
        structlog.get_logger("gateway.rollout").info("stage.started")
        structlog.get_logger("gateway.system.supervised").error("loop.failed", component="probes")
        logging.getLogger("another.package").warning("it says so")
        """,
    )
    found = [(line["event"], line["component"]) for line in lines(text)]
    assert found == [
        ("stage.started", "gateway.rollout"),
        ("loop.failed", "probes"),
        ("it says so", "another.package"),
    ]
