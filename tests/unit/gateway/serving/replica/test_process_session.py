"""Processes that end while others are looked for."""

import os

import pytest

from gateway.serving.replica import process_session

GONE = 4194305  # beyond the kernel's largest


def test_a_process_that_ended_since_it_was_found_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "listdir", lambda _: [str(GONE), "self"])
    assert process_session.end_all(lambda _: True) == 0
