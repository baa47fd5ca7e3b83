"""Damaged files of either plane are told, also while the gateway is not heard."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.contract.node_state import DamagedFile, NodeState
from registry_sync.domain import LedgerView
from registry_sync.domain.aspired import Aspired
from registry_sync.operations.damage import read_damage

FOUND = DamagedFile(name="routes.json", at=1.0, reason="is empty", instead="it begins anew")


@pytest.mark.parametrize("is_heard", [True, False])
def test_the_damaged_files_of_both_planes_are_told(is_heard: bool) -> None:
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1, damaged_files=[FOUND])
    own = FOUND.model_copy(update={"name": "holds.json", "set_aside": "holds.json.damaged-1"})
    view: Any = SimpleNamespace(
        gateway=node if is_heard else None,
        damaged_files=lambda: [own],
        damaged_copies=dict,
        aspired=Aspired({}, 0.0),
        ledger=LedgerView(),
    )
    of_the_gateway = "gateway: routes.json is empty; it begins anew"
    kept = "control plane: holds.json is empty, and is kept as holds.json.damaged-1; it begins anew"
    assert read_damage(view) == [of_the_gateway, kept][not is_heard :]
