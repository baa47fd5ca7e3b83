"""With a thousand models the state gives others a turn all the time."""

from dataclasses import replace
from pathlib import Path

from registry_sync.domain.operation_bodies import State
from registry_sync.operations.state import state_document
from tests.fakes.nodes import A, NodeInMemory, idle
from tests.unit.gateway.observability.test_exposition import share_without_a_turn

MODELS = 1000
ON_DEMAND = {"gateway.load": "on_demand"}
"""Nothing is fetched: the state says of each alias why it is not active."""


async def test_the_state_of_many_models_gives_others_a_turn(tmp_path: Path) -> None:
    node = NodeInMemory(tmp_path)
    names = [f"m{number:04}" for number in range(MODELS)]
    for name in names:
        node.registry.publish(name, 1)
        node.registry.point(name, A, 1)
        node.registry.models[name] = replace(node.registry.models[name], tags=ON_DEMAND)
    async with node.control_plane() as spine:
        await idle(spine)

        async def document() -> bytes:
            return await state_document(node.view, node_id="node", tracking_uri="fake:/")

        state = State.model_validate_json(await document())
        assert [one.name for one in state.models] == names
        assert await share_without_a_turn(document) < 0.5
