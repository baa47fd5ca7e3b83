"""What a model returned, as JSON values: spelled as MLflow spells it."""

import enum

import pytest

from gateway.worker.codecs import strict_json
from gateway.worker.rows import outputs


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


NAN = float("nan")


@pytest.mark.parametrize(
    ("output", "only"),
    [
        ([NAN, None], True),
        ({"a": [NAN], "b": None}, True),
        ([float("inf")], True),
        ([{"label": "spam", "score": NAN}], False),
        ([True, NAN], False),
        ([10**400, NAN], False),
        ([0.0, NAN], False),
        ([None], False),
        ([], False),
    ],
)
def test_texts_and_truth_values_are_an_answer_too(output, only):
    assert outputs.only_not_finite(output) is only


def test_an_answer_may_be_nested_as_deep_as_a_body():
    def nested(levels):
        return [] if levels == 1 else [nested(levels - 1)]

    deepest = strict_json.dumps({"predictions": outputs.to_json(nested(63))})
    assert strict_json.loads(deepest) == {"predictions": nested(63)}
    with pytest.raises(TypeError, match="nested too deep"):
        outputs.to_json(nested(64))
