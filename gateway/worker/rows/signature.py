"""A model's signature: which columns, tensors or values it takes, and which params.

Read from MLflow's own JSON (the lists under ``signature`` of an MLmodel), without MLflow: our
answers name the row and the field, and MLflow's own would repeat the caller's data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gateway.worker.errors import Detail, RequestRefusedError, invalid
from gateway.worker.rows import columns, nested
from gateway.worker.rows.inputs import TENSOR_NAME, Form
from gateway.worker.rows.plain_rows import PlainLayout

_ONE_RECORD = frozenset({"array", "object"})
_MOST_LEVELS = 64
_LEVELS_AROUND = 8
"""Of a body around a cell: the object, its member, rows, a row; and as many for what is dropped."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        label: Its name, or its position where the signature has no names.
        kind: MLflow's name of its type.
        holder: The type, where it is one that holds others.
        named: Whether it has a name, which may be a whole number: a DataFrame's own count.
    """

    label: str | int
    kind: str
    required: bool = True
    holder: nested.Type | None = None
    named: bool = True


@dataclass(frozen=True)
class Tensor:
    """One tensor; ``name`` is empty where the model takes one that has none."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One param: its type, and its default where the caller gives none."""

    name: str
    kind: str
    default: Any
    is_list: bool
    holder: nested.Type | None = None


@dataclass(frozen=True)
class Signature:
    """What a model takes: columns, tensors, or values of a type; of none of them, anything.

    Attributes:
        value: The type of one row of a model that has it from its type hints: it takes a list.
    """

    columns: tuple[Column, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    params: tuple[Param, ...] = field(default=())
    value: nested.Type | None = None

    @property
    def enforced(self) -> bool:
        """Whether there is anything to validate against."""
        return bool(self.columns or self.tensors or self.value)

    @cached_property
    def levels(self) -> int:
        """How many levels a body can have that fits, and some more for members that are dropped."""
        if not self.enforced:
            return _MOST_LEVELS
        held = [column.holder for column in self.columns if column.holder] + [
            param.holder for param in self.params if param.holder
        ]
        deepest = max((nested.levels_of(one) for one in (*held, self.value) if one), default=0)
        ranks = max((len(tensor.shape) for tensor in self.tensors), default=0)
        return min(_MOST_LEVELS, _LEVELS_AROUND + max(deepest, ranks))

    @cached_property
    def plain(self) -> PlainLayout | None:
        """How plain values are read; None: there are columns of types that have none."""
        if not all(column.kind in columns.PLAIN_TYPES for column in self.columns):
            return None
        return PlainLayout([(column.label, column.kind) for column in self.columns])

    def proved(self, form: Form) -> Form:
        """Return what rows are like for which a proof holds that was made with such of ``form``.

        In a required column of a plain type no null comes as far as the model. And names that are
        this signature's own are its own object: they are compared with every request's.
        """
        never = {c.label for c in self.columns if c.required and c.kind in columns.SCALAR_TYPES}
        own = form.names if self.plain is None else self.plain.labels
        names = own if own == form.names else form.names
        return Form(form.kind, names, form.nulls | never)

    @cached_property
    def holds_others(self) -> bool:
        """Whether a column holds lists or objects."""
        return any(column.kind in _ONE_RECORD for column in self.columns)

    def is_one_record(self, given: Mapping[str, Any]) -> bool:
        """Whether an object under ``inputs`` is one row, and not columns: MLflow's rule."""
        return self.holds_others or not any(
            type(value) is list and not (name in self._of_anything and _is_text(value))
            for name, value in given.items()
        )

    @cached_property
    def _of_anything(self) -> frozenset[str | int]:
        return frozenset(column.label for column in self.columns if column.kind == "any")

    @cached_property
    def nameless(self) -> bool:
        """Whether there are columns, and none has a name."""
        return bool(self.columns) and not any(column.named for column in self.columns)

    @cached_property
    def takes_one_value(self) -> bool:
        """Whether the model takes one tensor without a name, and that has no dimensions."""
        return any(not tensor.name and not tensor.shape for tensor in self.tensors)

    def labelled(self, labels: Sequence[Any]) -> Signature:
        """Return this, its nameless columns with the names that a caller gives them, in order."""
        if not self.nameless or self.columns[0].label in labels:
            return self
        named = zip(self.columns, labels, strict=False)
        given = tuple(replace(column, label=label) for column, label in named)
        return replace(self, columns=given + self.columns[len(given) :])


def parse(signature: Mapping[str, Any] | None, *, from_type_hints: bool = False) -> Signature:
    """Read the description's ``signature``.

    Args:
        signature: MLflow's lists, or None if the model has none.
        from_type_hints: Whether MLflow has made it of the model's type hints.

    Raises:
        ValueError: It is not MLflow's JSON.
    """
    if not signature:
        return Signature()
    try:
        specs = list(signature.get("inputs") or ())
        params = tuple(map(_param, signature.get("params") or ()))
        if specs and from_type_hints:
            return Signature(value=nested.parse(specs[0]), params=params)
        if specs and specs[0]["type"] == "tensor":
            return Signature(tensors=tuple(map(_tensor, specs)), params=params)
        return Signature(
            columns=tuple(_column(position, spec) for position, spec in enumerate(specs)),
            params=params,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the signature is not MLflow's: {error!r}") from error


def _is_text(values: list[Any]) -> bool:
    return all(type(value) is str for value in values)


def _column(position: int, spec: Mapping[str, Any]) -> Column:
    named = spec.get("name") is not None
    label = spec["name"] if named else position
    holder = nested.parse(spec) if spec["type"] in nested.HOLDERS else None
    return Column(label, spec["type"], bool(spec.get("required", True)), holder, named)


def _param(spec: Mapping[str, Any]) -> Param:
    holder = nested.parse(spec) if spec["type"] in nested.HOLDERS else None
    return Param(spec["name"], spec["type"], spec.get("default"), bool(spec.get("shape")), holder)


def _tensor(spec: Mapping[str, Any]) -> Tensor:
    inner = spec["tensor-spec"]
    return Tensor(spec.get("name") or TENSOR_NAME, inner["dtype"], tuple(inner["shape"]))


# --- params -------------------------------------------------------------------------------------


def validate_params(signature: Signature, given: Any) -> dict[str, Any]:
    """Return every param of the signature, from ``given`` or by default; unknown ones are dropped.

    Raises:
        RequestRefusedError: ``given`` is no object, or a value is not of its type.
    """
    if given is None:
        given = {}
    if type(given) is not dict:
        raise invalid("the params are not an object", (None, "params", "not an object"))
    validated: dict[str, Any] = {}
    details: list[Detail] = []
    for param in signature.params:
        value = given.get(param.name, param.default)
        if param.name in given:
            try:
                value = _as_param(param, value)
            except ValueError as error:
                details.append((None, f"params.{param.name}", str(error)))
        validated[param.name] = value
    if details:
        raise invalid("the params do not fit the model's signature", *details)
    return validated


def _as_param(param: Param, value: Any) -> Any:
    """Return a caller's value as MLflow takes it: it wants whole numbers without a point.

    Raises:
        ValueError: It is not of the param's type; says so, without the value.
    """
    if value is None and not param.is_list:
        return value
    if param.holder is not None:
        return _as_object(param.holder, value)
    if param.kind not in columns.SCALAR_TYPES:
        return value
    refused = ValueError(f"not a list of {param.kind}" if param.is_list else f"not {param.kind}")
    values = value if param.is_list else [value]
    if type(values) is not list:
        raise refused
    try:
        array = columns.to_array(param.name, values, param.kind, required=True)
        if param.kind == "datetime":
            list(map(columns.moment, values))  # MLflow has Python's, which have microseconds
    except (RequestRefusedError, ValueError) as error:
        raise refused from error
    if param.kind not in columns.WHOLE_TYPES:
        return value
    return array.tolist() if param.is_list else array.item()


def _as_object(holder: nested.Type, value: Any) -> Any:
    faults: list[nested.Fault] = []
    bound = nested.bind(holder, value, faults)
    for at, reason in faults:
        raise ValueError(f"{at}: {reason}" if at else reason)
    return bound
