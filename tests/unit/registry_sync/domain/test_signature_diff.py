"""What is told of two signatures, and what breaks a caller: a table."""

from typing import Any

import pytest

from registry_sync.domain.signature_diff import compare_signatures


def column(name: str | None, kind: str = "double", **more: Any) -> dict[str, Any]:
    return {"type": kind, **({"name": name} if name else {}), **more}


def tensor(dtype: str = "float32", shape: tuple[int, ...] = (-1, 4)) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}


def param(name: str, default: object = 1, kind: str = "long") -> dict[str, Any]:
    return {"name": name, "type": kind, "default": default, "shape": None}


def signature(inputs: Any = None, outputs: Any = None, params: Any = None) -> dict[str, Any]:
    return {"inputs": inputs, "outputs": outputs, "params": params}


X, Y = column("x"), column("y")
ONE = signature([X, Y], [column(None)])


@pytest.mark.parametrize(
    ("why", "before", "after", "breaking", "compatible"),
    [
        ("the same", ONE, signature([X, Y], [column(None)]), [], []),
        ("none and none", None, None, [], []),
        ("none before", None, ONE, ["it had no signature before"], []),
        ("none after", ONE, None, ["it has no signature any more"], []),
        ("gone", signature([X, Y]), signature([X]), ["input y is gone"], []),
        ("new", signature([X]), signature([X, Y]), ["input y (double) is new and required"], []),
        (
            "new and optional",
            signature([X]),
            signature([X, column("y", required=False)]),
            [],
            ["input y (double) is new and optional"],
        ),
        (
            "optional, but before what was there: whoever goes by position trips",
            signature([X]),
            signature([column("y", required=False), X]),
            ["the inputs are in another order"],
            ["input y (double) is new and optional"],
        ),
        ("order", signature([X, Y]), signature([Y, X]), ["the inputs are in another order"], []),
        (
            "type",
            signature([X]),
            signature([column("x", "string")]),
            ["input x is string, was double"],
            [],
        ),
        (
            "optional now",
            signature([X]),
            signature([column("x", required=False)]),
            [],
            ["input x is now optional"],
        ),
        (
            "required now",
            signature([column("x", required=False)]),
            signature([X]),
            ["input x is now required"],
            [],
        ),
        (
            "without names",
            signature([column(None)]),
            signature([column(None), column(None)]),
            ["input number 2 (double) is new and required"],
            [],
        ),
        (
            "tensors",
            signature([tensor()]),
            signature([tensor(shape=(-1, 5))]),
            ["input number 1 is float32[-1, 5], was float32[-1, 4]"],
            [],
        ),
        (
            "columns instead of a tensor",
            signature([tensor()]),
            signature([X]),
            ["input number 1 is gone", "input x (double) is new and required"],
            [],
        ),
        (
            "nested types",
            signature([column("x", "array", items={"type": "double"})]),
            signature([column("x", "array", items={"type": "string"})]),
            ["input x is array of {'items': {'type': 'string'}}"],
            [],
        ),
        (
            "params",
            signature(params=[param("k"), param("gone"), param("t")]),
            signature(params=[param("k", 2), param("t", 1, "string"), param("new")]),
            ["param gone is gone", "param t is string, was long"],
            ["param k has another default", "param new (long) is new and has a default"],
        ),
        ("params of nothing", signature(), signature(params=[]), [], []),
        (
            "outputs",
            signature(outputs=[column(None)]),
            signature(outputs=[column("label", "string")]),
            ["the outputs are label (string), were double"],
            [],
        ),
        ("no outputs any more", ONE, signature([X, Y]), ["the outputs are nothing, were"], []),
    ],
)
def test_what_is_different(
    why: str, before: Any, after: Any, breaking: list[str], compatible: list[str]
) -> None:
    found = compare_signatures(before, after)
    if not breaking and not compatible:
        assert found is None, (why, found)
        return
    assert found is not None
    for said, expected in ((found.breaking, breaking), (found.compatible, compatible)):
        assert len(said) == len(expected), (why, said)
        assert all(one.startswith(start) for one, start in zip(said, expected, strict=True)), said


def test_what_is_told_is_bounded_and_the_worst_goes_first() -> None:
    before = signature([column(f"c{number}" + "x" * 500) for number in range(1000)])
    after = signature([column("a\nb", required=False)], params=[param("new")])
    found = compare_signatures(before, after)
    assert found is not None
    assert len(found.summary) < 1000
    assert "and 996 more" in found.summary
    assert found.summary.startswith("input c0x")


def test_what_is_no_signature_of_mlflow_is_compared_all_the_same() -> None:
    found = compare_signatures(signature([1, "x", {"name": 5}]), signature({"odd": True}))
    assert found is not None
