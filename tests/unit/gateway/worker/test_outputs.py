"""What a model returned, as JSON values: spelled as MLflow spells it."""

import enum

import pytest

from gateway.worker import outputs


class Role(str, enum.Enum):  # noqa: UP042  # that is another class: str() says its text
    user = "someone"


class Level(enum.IntEnum):
    high = 3


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (Role.user, "someone"),
        (Level.high, 3),
        (
            {True: 1, None: 2, float("inf"): 3, 0.5: 4},
            {"true": 1, "null": 2, "Infinity": 3, "0.5": 4},
        ),
        ({Role.user: Role.user, Level.high: 1}, {"someone": "someone", "3": 1}),
        ({"1": "a", 1: "b"}, {"1": "b"}),
        ({(1, 2): 3}, {"(1, 2)": 3}),
    ],
)
def test_values_and_names_are_spelled_as_json_spells_them(value, spelled):
    assert outputs.to_json([value]) == [spelled]
    (one,) = outputs.to_json([value])
    assert type(one) in {str, int, dict}
