"""Altered bytes are accepted only of a version that is listed and quarantined for them."""

from types import SimpleNamespace
from typing import Any

import pytest

from registry_sync.domain import LedgerView, Quarantine, QuarantineRequest
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.operations.decisions.quarantine import accept
from registry_sync.operations.errors import CannotServeError, NotQuarantinedError
from tests.fakes.nodes import M

WRONG = Quarantine(M, 1, None, None, None, "its MLmodel cannot be read", 0.0)
REQUEST = QuarantineRequest(model=M, version=1)


def view_of(*versions: int, quarantines: bool) -> Any:
    """Return what operators see of a node that lists some versions of a model."""
    listed = AspiredModel(M, {number: AspiredVersion(M, number, "there") for number in versions})
    ledger = LedgerView(quarantines={(M, 1): WRONG} if quarantines else {})
    return SimpleNamespace(aspired=Aspired({M: listed}, 0.0), ledger_of=lambda _: ledger)


@pytest.mark.parametrize(("versions", "quarantines"), [((1,), False), ((2,), True), ((), False)])
def test_a_version_that_is_not_quarantined_is_not_accepted(
    versions: tuple[int, ...], quarantines: bool
) -> None:
    nobody: Any = None
    with pytest.raises(NotQuarantinedError, match="version 1 of churn is not quarantined"):
        accept(view_of(*versions, quarantines=quarantines), nobody, REQUEST)


def test_bytes_that_cannot_be_read_are_not_accepted() -> None:
    nobody: Any = None
    with pytest.raises(CannotServeError, match="cannot be read as an artifact"):
        accept(view_of(1, quarantines=True), nobody, REQUEST)
