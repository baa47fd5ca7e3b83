"""A real control plane holds a promotion until a window opens, and a rollback acts meanwhile."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.surface import active_version, alias_of
from tests.acceptance.traffic import client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel

ALIAS = "champion"
PASSES = 2


def window_in(hours: int) -> tuple[str, str]:
    """Return a window that opens so many hours from now, and the moment of that."""
    opens_at = (datetime.now(UTC) + timedelta(hours=hours)).replace(minute=0, second=0)
    text = f"0 {opens_at.hour} * * * PT3H UTC"
    return text, f"{opens_at:%Y-%m-%dT%H:%M:%SZ}"


async def test_a_promotion_waits_for_its_window_and_a_rollback_does_not(
    running_node: Node, registry: Registry
) -> None:
    node = running_node
    waiting, regretted = registry.name("waiting"), registry.name("regretted")
    for model in (waiting, regretted):
        for slope in (1.0, 2.0):
            registry.publish(model, LinearModel(slope))
        registry.point(model, ALIAS, 1)
    async with client(2) as http:
        await node.active(http, waiting, ALIAS, 1)
        await node.active(http, regretted, ALIAS, 1)
        registry.point(regretted, ALIAS, 2)
        await node.active(http, regretted, ALIAS, 2)
        window, opens_at = window_in(12)
        try:
            node.stop_control()
            node.start_control({"REGISTRY_SYNC_PROMOTION_WINDOW": window})
            registry.point(waiting, ALIAS, 2)
            reason = f"waits for the promotion window that opens at {opens_at}"

            async def waits() -> bool:
                return bool(alias_of(await node.model(http, waiting), ALIAS)["why"] == reason)

            await eventually(waits, "callers see what it waits for")
            done = await asyncio.to_thread(node.command, "explain", waiting, f"@{ALIAS}", "--json")
            (shown,) = json.loads(done.stdout)["selectors"]
            assert (shown["version"], shown["aspired"]) == (1, 2), shown
            assert (shown["why"], shown["reason"]) == ("awaits_window", reason), shown
            done = await asyncio.to_thread(node.command, "rollback", f"{regretted}@{ALIAS}")
            assert done.returncode == 0, done.stdout + done.stderr
            await node.active(http, regretted, ALIAS, 1)
            await node.passes(http, PASSES)
            assert active_version(await node.model(http, waiting), ALIAS) == 1
            node.stop_control()
            window, _ = window_in(-1)
            node.start_control({"REGISTRY_SYNC_PROMOTION_WINDOW": window})
            await node.active(http, waiting, ALIAS, 2)
        finally:
            node.stop_control()  # the next test starts one without a window
