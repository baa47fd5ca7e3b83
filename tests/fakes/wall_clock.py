"""A wall clock that a test sets, also for APScheduler."""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from apscheduler.schedulers import base


@contextlib.contextmanager
def apscheduler_reads(clock: Callable[[], float]) -> Iterator[None]:
    """Have APScheduler read a clock of epoch seconds instead of the machine's."""

    class Patched(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Patched":
            return cls.fromtimestamp(clock(), tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "datetime", Patched)
        yield
