"""A command does not outlive the process that holds the pipe's write end."""

import os
import sys

import pytest

from gateway.system.processes import lifeline
from tests.fakes.pythons import ended


@pytest.mark.parametrize("is_held", [True, False])
def test_a_command_starts_only_while_the_pipe_is_held(is_held: bool) -> None:
    alive, held = os.pipe()
    if not is_held:
        os.close(held)
    command = [sys.executable, "-I", "-S", lifeline.__file__, str(alive), "echo", "it runs"]
    done = ended(command, pass_fds=[alive])
    expected = (0, "it runs\n") if is_held else (lifeline.CANNOT_BE_STARTED, "")
    assert (done.returncode, done.stdout) == expected
    for one in (alive, held) if is_held else (alive,):
        os.close(one)


def test_no_command_is_become_on_a_pipe_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    become: list[str] = []
    monkeypatch.setattr(os, "execvp", lambda file, _: become.append(file))
    alive, held = os.pipe()
    os.close(held)
    assert lifeline.main([str(alive), "echo"]) == lifeline.CANNOT_BE_STARTED
    os.close(alive)
    assert become == []
