"""Runs every step of a release, even if an earlier one raises.

A step that was skipped would leave a slot, a lease or a descriptor taken until the next start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger("gateway.system.release")


def release_all(*steps: Callable[[], object]) -> None:
    """Run all steps of a release in order; log what raises."""
    for step in steps:
        try:
            step()
        except Exception:  # noqa: BLE001  # the next step runs
            _log.exception("release.failed")


async def release_each(*steps: Callable[[], Awaitable[object]]) -> None:
    """Run all asynchronous steps of a release in order; log what raises."""
    for step in steps:
        try:
            await step()
        except Exception:  # noqa: BLE001  # the next step runs
            _log.exception("release.failed")
