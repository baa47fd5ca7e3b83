"""Types that hold others: MLflow's ``array``, ``object``, ``map`` and ``any``, and their values.

A column of such a type is validated here. The type of a model's type hint is less precise than the
hint (an item may be null, a class may validate a field), so its values are only converted; their
faults are listed if MLflow refuses them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.worker.errors import MAX_DETAILS, MOST_OF_A_NAME
from gateway.worker.rows import columns

HOLDERS = frozenset({"array", "object", "map", "any"})
_ENDLESS = 1000
_NULLABLE_ITEMS = frozenset({"double", "float"})
"""Null among items of these types is NaN. MLflow would turn other nulls into text or booleans."""

Fault = tuple[str, str]
"""The position in a value, as ``home.city`` or ``tags[1]``, or empty for all of it; the reason."""


@dataclass(frozen=True)
class Type:
    """One type of MLflow.

    Attributes:
        kind: Its name.
        held: The type of the items of an ``array``, or of the values of a ``map``.
        properties: The types of the properties of an ``object``, by name.
        required: Whether a property must be present and not null.
    """

    kind: str
    held: Type | None = None
    properties: Mapping[str, Type] = field(default_factory=dict)
    required: bool = True


def levels_of(type_: Type) -> int:
    """Return the most levels of a value of a type; of ``any``, more than a body may have."""
    if type_.kind == "any":
        return _ENDLESS
    held = [type_.held] if type_.held else [*type_.properties.values()]
    return 1 + max(map(levels_of, held)) if held else int(type_.kind in HOLDERS)


def parse(spec: Mapping[str, Any]) -> Type:
    """Read MLflow's JSON of a type.

    Raises:
        KeyError: A part of it is missing.
        TypeError: It is not an object.
    """
    kind, required = spec["type"], bool(spec.get("required", True))
    if kind == "array":
        return Type(kind, held=parse(spec["items"]), required=required)
    if kind == "map":
        return Type(kind, held=parse(spec["values"]), required=required)
    if kind == "object":
        properties = {name: parse(one) for name, one in spec["properties"].items()}
        return Type(kind, properties=properties, required=required)
    return Type(kind, required=required)


def bind(type_: Type, value: Any, faults: list[Fault]) -> Any:
    """Return a column's value for MLflow; add its misfits to ``faults``.

    ``float`` and ``integer`` become numpy's types, since MLflow narrows no number.
    """
    return _Reader(faults, binds=True).read(type_, value, "")


def convert(type_: Type, value: Any) -> tuple[Any, list[Fault]]:
    """Return a hint's value with numbers, bytes and dates converted, and malformed strings."""
    reader = _Reader([], binds=False)
    return reader.read(type_, value, ""), reader.garbled


def faults_of(type_: Type, value: Any) -> list[Fault]:
    """Return the faults of a hint's value, converted or not."""
    faults: list[Fault] = []
    _Reader(faults, binds=False).read(type_, value, "")
    return faults


class _Reader:
    """Walks one value; adds up to `MAX_DETAILS` entries to ``faults``."""

    def __init__(self, faults: list[Fault], *, binds: bool) -> None:
        self._faults = faults
        self._binds = binds
        self.garbled: list[Fault] = []

    def read(self, type_: Type, value: Any, at: str) -> Any:
        if type_.kind not in HOLDERS:
            return self._scalar(type_, value, at)
        if type_.kind == "any" or (value is None and not type_.required):
            return value
        if type_.kind == "array":
            return self._items(type_, value, at)
        if type(value) is not dict:
            self._add(at, f"{columns.describe_type(value)} where an object is needed")
            return value
        if type_.kind == "map":
            held = type_.held or Type("any")
            return {key: self.read(held, one, _member_path(at, key)) for key, one in value.items()}
        return self._properties(type_, value, at)

    def _items(self, type_: Type, value: Any, at: str) -> Any:
        if type(value) is not list:
            self._add(at, f"{columns.describe_type(value)} where a list is needed")
            return value
        held = type_.held or Type("any")
        nullable = held.kind in _NULLABLE_ITEMS and self._binds
        return [
            None if one is None and nullable else self.read(held, one, f"{at}[{index}]")
            for index, one in enumerate(value)
        ]

    def _properties(self, type_: Type, value: dict[str, Any], at: str) -> Any:
        for name, one in type_.properties.items():
            if one.required and name not in value:
                self._add(_member_path(at, name), "required and missing")
        read = {}
        for name, one in value.items():
            known = type_.properties.get(name)
            if known is None and self._binds:
                self._add(_member_path(at, name), "not in the model's signature")
            read[name] = one if known is None else self.read(known, one, _member_path(at, name))
        return read

    def _scalar(self, type_: Type, value: Any, at: str) -> Any:
        if value is None and not type_.required:
            return None
        if isinstance(value, (dt.datetime, bytes)) and not self._binds:
            return value  # converted before
        try:
            return self._of_kind(type_.kind, value)
        except ValueError as error:
            if type(value) is str and type_.kind in {"binary", "datetime"}:
                self.garbled.append((at, str(error)))
            self._add(at, str(error))
            return value

    def _of_kind(self, kind: str, value: Any) -> Any:
        if kind == "datetime" and not self._binds:
            return columns.moment(columns.scalar("string", value))
        one = columns.scalar(kind, value)
        if not self._binds:
            return float(one) if kind == "double" else one
        return columns.narrow(kind, one)

    def _add(self, at: str, reason: str) -> None:
        if len(self._faults) < MAX_DETAILS:
            self._faults.append((at, reason))


def _member_path(at: str, name: str) -> str:
    name = name[:MOST_OF_A_NAME]
    return f"{at}.{name}" if at else name


def cell(value: Any) -> Any:
    """Return a bound list of a column as an array, as MLflow does.

    A list of lists of several lengths has no array and stays a list.
    """
    import numpy as np

    if type(value) is not list:
        return value
    try:
        return np.array(value)
    except ValueError:
        return value
