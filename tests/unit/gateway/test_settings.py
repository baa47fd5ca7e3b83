"""Settings that depend on others."""

import pytest

from gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 3.0),
        ({"load_budget_s": 90.0}, 9.0),
        ({"proof_budget_s": 5.0}, 5.0),
        ({"proof_budget_s": 0.0, "load_budget_s": 90.0}, 0.0),
    ],
)
def test_a_proof_may_take_a_tenth_of_the_load_budget_unless_told(
    given: dict[str, float], seconds: float
) -> None:
    assert GatewaySettings(**given).proof_s == pytest.approx(seconds)  # type: ignore[arg-type]  # all are numbers
