"""What the demonstration prints is what it does, and what it concludes from answers is right."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.demo.__main__ import main
from deploy.demo.calls import Call
from deploy.demo.errors import DemoError
from deploy.demo.opening import own_folder
from deploy.demo.run import Show
from deploy.demo.screen import Screen
from deploy.demo.servers import Servers
from deploy.demo.story import SABOTAGES, STEPS, Scene, Step
from deploy.demo.traffic import CLIENTS, Record, find_swap

BY_ALIAS, BY_NUMBER = CLIENTS[0], CLIENTS[-1]
URL = "http://127.0.0.1:8080/models/it's%20mine/versions/@champion/predict"


def test_a_printed_command_survives_the_shell() -> None:
    body = {"features": {"name": "O'Brien", "a": 1.5}}
    call = Call(URL, "POST", {"X-Model-Version": "2"}, body)
    words = shlex.split(call.command)
    assert words[:3] == ["curl", "-s", URL]
    assert words[3:5] == ["-H", "X-Model-Version: 2"]
    assert json.loads(words[-1]) == body


def test_curl_is_told_the_method_only_where_it_would_take_another() -> None:
    assert "-X" not in Call(URL).command
    assert "-X" not in Call(URL, "POST", json={}).command
    assert "-X DELETE" in Call(URL, "DELETE").command


def _record(at: float, version: int | None, client: object = BY_ALIAS) -> Record:
    return Record(client, at, at + 0.5, version, None)  # type: ignore[arg-type]  # a stand-in


def test_the_swap_is_where_alias_callers_change_from_old_to_new() -> None:
    records = [_record(1, 1), _record(2, 1), _record(3, 2), _record(4, 2)]
    swap = find_swap(records, old=1, new=2, shown_at=3.2)
    assert swap is not None
    assert (swap.last_old, swap.first_new, swap.stale) == (2.5, 3.5, 0)


def test_an_old_answer_to_a_request_sent_after_the_new_version_was_shown_is_stale() -> None:
    records = [_record(1, 1), _record(3, 2), _record(4, 1)]
    swap = find_swap(records, old=1, new=2, shown_at=3.2)
    assert swap is not None
    assert swap.stale == 1


def test_callers_by_number_say_nothing_about_the_swap() -> None:
    records = [_record(1, 1), _record(2, 2, BY_NUMBER)]
    assert find_swap(records, old=1, new=2, shown_at=9) is None


def test_a_folder_of_its_own_is_emptied_and_not_shared(tmp_path: Path) -> None:
    state = tmp_path / "demo"
    with own_folder(state):
        (state / "node" / "left.txt").write_text("from the last run")
        with pytest.raises(DemoError, match="another demonstration"), own_folder(state):
            pass
    with own_folder(state):
        assert not (state / "node" / "left.txt").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoError, match="holds files"), own_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()


def _main(monkeypatch: pytest.MonkeyPatch, sabotage: str) -> int:
    monkeypatch.setattr(sys, "argv", ["demo", "--once"])
    monkeypatch.setenv("DEMO_SABOTAGE", sabotage)
    return main()


def test_an_unknown_step_is_named_and_the_known_ones_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "coffee") == 2
    written = capsys.readouterr().err
    assert all(step in written for step in ("coffee", *SABOTAGES))


def test_every_step_can_be_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "list") == 0
    written = capsys.readouterr().out
    assert [line.split()[0] for line in written.splitlines()] == [step.name for step in STEPS]


def test_a_step_that_does_not_hold_fails_by_its_name() -> None:
    def check(_: Scene) -> list[str]:
        raise DemoError("no answer")

    show = Show(Screen(Console(file=io.StringIO())), Servers())
    scene: Any = None
    with pytest.raises(DemoError, match="FAILED step predict: no answer"):
        show._one(Step("predict", "", lambda _: None, check), scene)
