"""Releasing what is held: step by step, each taken whatever became of the one before.

A step that raises is logged and costs itself only. One that is left out leaves a slot, a lease or a
descriptor taken until the gateway is started again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger("gateway.system.release")


def release_all(*steps: Callable[[], object]) -> None:
    """Take all steps of a release, in this order."""
    for step in steps:
        try:
            step()
        except Exception:  # noqa: BLE001  # the next step releases something else
            _log.exception("release.failed")


async def release_each(*steps: Callable[[], Awaitable[object]]) -> None:
    """Take all steps of a release that have to be waited for, one after the other."""
    for step in steps:
        try:
            await step()
        except Exception:  # noqa: BLE001  # the next step ends processes
            _log.exception("release.failed")
