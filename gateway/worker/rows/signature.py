"""A model's signature: its columns, tensors or values, and its params.

It is read from MLflow's JSON (the lists under ``signature`` of an MLmodel), without MLflow, whose
errors would repeat the caller's data instead of naming row and field.
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
"""Levels of a body around a cell: object, member, rows, row; and as many for dropped members."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        label: Its name, or its position if the signature has no names.
        kind: MLflow's name of its type.
        holder: Its type if that holds other types, else None.
        named: Whether it has a name. A name may be a whole number, as a DataFrame's default.
    """

    label: str | int
    kind: str
    required: bool = True
    holder: nested.Type | None = None
    named: bool = True


@dataclass(frozen=True)
class Tensor:
    """One tensor; ``name`` is empty if the signature does not name it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One param: its type, and the default for requests without it."""

    name: str
    kind: str
    default: Any
    is_list: bool
    holder: nested.Type | None = None


@dataclass(frozen=True)
class Signature:
    """The input of a model: columns, tensors, values of a type, or anything if all are empty.

    Attributes:
        value: The type of one row by the model's type hints, or None. The model takes a list.
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
        """The most levels of a valid body, and some more for members that are dropped."""
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
        """The layout of plain values, or None if a column's type has no plain values."""
        if not all(column.kind in columns.PLAIN_TYPES for column in self.columns):
            return None
        return PlainLayout([(column.label, column.kind) for column in self.columns])

    def proved(self, form: Form) -> Form:
        """Return the form of rows that a proof covers, which was made with rows of ``form``.

        Nulls in required columns of scalar types count as covered: they never reach the model. If
        the names are the signature's, the form has the same object, which is faster to compare.
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
        """Whether an object under ``inputs`` is one row, not columns, by MLflow's rule."""
        return self.holds_others or not any(
            type(value) is list and not (name in self._of_anything and _is_text(value))
            for name, value in given.items()
        )

    @cached_property
    def _of_anything(self) -> frozenset[str | int]:
        return frozenset(column.label for column in self.columns if column.kind == "any")

    @cached_property
    def nameless(self) -> bool:
        """Whether the columns, of which there are some, have no names."""
        return bool(self.columns) and not any(column.named for column in self.columns)

    @cached_property
    def takes_one_value(self) -> bool:
        """Whether the model takes one unnamed tensor without dimensions."""
        return any(not tensor.name and not tensor.shape for tensor in self.tensors)

    def labelled(self, labels: Sequence[Any]) -> Signature:
        """Return the signature with a caller's labels, in order, for nameless columns."""
        if not self.nameless or self.columns[0].label in labels:
            return self
        named = zip(self.columns, labels, strict=False)
        given = tuple(replace(column, label=label) for column, label in named)
        return replace(self, columns=given + self.columns[len(given) :])


def parse(signature: Mapping[str, Any] | None, *, from_type_hints: bool = False) -> Signature:
    """Read the description's ``signature``.

    Args:
        signature: MLflow's lists, or None if the model has none.
        from_type_hints: Whether MLflow derived it from the model's type hints.

    Raises:
        ValueError: It is not MLflow's JSON of a signature.
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
        raise ValueError(f"the signature must be MLflow's JSON: {error!r}") from error


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
    """Return every param of the signature: the given value or the default. Others are dropped.

    Raises:
        RequestRefusedError: ``given`` is not an object, or a value is not of its type.
    """
    if given is None:
        given = {}
    if type(given) is not dict:
        raise invalid("'params' must be an object", (None, "params", "not an object"))
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
    """Return a caller's value for MLflow, which takes ``1`` but not ``1.0`` as a whole number.

    Raises:
        ValueError: It is not of the param's type; the message does not have the value.
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
            list(map(columns.moment, values))  # MLflow's params have microseconds at most
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
