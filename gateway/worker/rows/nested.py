"""Types that hold others: MLflow's ``array``, ``object``, ``map`` and ``any``, and values of them.

A signature has them as types of columns, where they bind, and as what a model's type hints came to.
A hint says more than its signature (an item that may be null, a field that a model of its own
checks): there values are only converted, and what is wrong with one is told once MLflow refused it.
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
"""Null among items of these is NaN; MLflow makes words and truth values of others."""

Fault = tuple[str, str]
"""Where in a value, as ``home.city`` or ``tags[1]``, empty for all of it; and why."""


@dataclass(frozen=True)
class Type:
    """One type of MLflow.

    Attributes:
        kind: Its name.
        held: Of an ``array`` the type of its items, of a ``map`` that of its values.
        properties: Of an ``object``, by name.
        required: Of a property: whether it must be there, and not null.
    """

    kind: str
    held: Type | None = None
    properties: Mapping[str, Type] = field(default_factory=dict)
    required: bool = True


def levels_of(type_: Type) -> int:
    """Return how many levels a value of a type can have; of ``any``, more than a body may."""
    if type_.kind == "any":
        return _ENDLESS
    held = [type_.held] if type_.held else [*type_.properties.values()]
    return 1 + max(map(levels_of, held)) if held else int(type_.kind in HOLDERS)


def parse(spec: Mapping[str, Any]) -> Type:
    """Read MLflow's JSON of a type.

    Raises:
        KeyError: A part of it is missing.
        TypeError: It is no object.
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
    """Return a column's value as MLflow takes it; what does not fit is added to ``faults``.

    ``float`` and ``integer`` become ``numpy``'s, since MLflow narrows no number.
    """
    return _Reader(faults, binds=True).read(type_, value, "")


def convert(type_: Type, value: Any) -> tuple[Any, list[Fault]]:
    """Return a hint's value with its numbers, bytes and dates, and what can be none of these."""
    reader = _Reader([], binds=False)
    return reader.read(type_, value, ""), reader.garbled


def faults_of(type_: Type, value: Any) -> list[Fault]:
    """Say what is wrong with a hint's value, converted or not."""
    faults: list[Fault] = []
    _Reader(faults, binds=False).read(type_, value, "")
    return faults


class _Reader:
    """Walks one value. Adds to ``faults`` until there are enough of them."""

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
            return {key: self.read(held, one, _below(at, key)) for key, one in value.items()}
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
                self._add(_below(at, name), "required and missing")
        read = {}
        for name, one in value.items():
            known = type_.properties.get(name)
            if known is None and self._binds:
                self._add(_below(at, name), "not in the model's signature")
            read[name] = one if known is None else self.read(known, one, _below(at, name))
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


def _below(at: str, name: str) -> str:
    name = name[:MOST_OF_A_NAME]
    return f"{at}.{name}" if at else name


def cell(value: Any) -> Any:
    """Return a column's list, bound before, as the array that MLflow makes of it.

    It stays a list where no array holds it: items that are lists of several lengths.
    """
    import numpy as np

    if type(value) is not list:
        return value
    try:
        return np.array(value)
    except ValueError:
        return value
