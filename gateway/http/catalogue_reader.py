"""Decodes a catalogue without blocking the event loop.

Thousands of versions are megabytes of JSON, and half a second of decoding and validating. So models
and versions are decoded and validated one at a time, in slices. Errors are as of any other body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from gateway.contract import Catalogue, CatalogueModel, CatalogueVersion, ModelChange
from gateway.routing import ListedVersions
from gateway.system import in_slices

B = TypeVar("B", bound=BaseModel)
_SPACE = re.compile(r"[ \t\r\n]*")
_Path = tuple[str | int, ...]


async def read_catalogue(document: bytes) -> Catalogue:
    """Return a catalogue from its document.

    Raises:
        RequestValidationError: The document is invalid, with the path of each error.
    """
    fields = await _members(document, {"models": ("[", _models)})
    return _valid(Catalogue, fields, ())


async def read_model_change(document: bytes) -> ModelChange:
    """Return a change of a model from its document.

    Raises:
        RequestValidationError: The document is invalid, with the path of each error.
    """
    fields = await _members(document, {"model": ("{", partial(_model, path=("model",)))})
    return _valid(ModelChange, fields, ())


async def _members(
    document: bytes, long: Mapping[str, tuple[str, Callable[[_Reader], Awaitable[Any]]]]
) -> dict[str, Any]:
    """Return the members of an object; ``long`` ones are read piece by piece.

    ``long`` has, by name, the first character and the function that reads the member.

    Raises:
        RequestValidationError: The document is not a JSON object.
    """
    fields: dict[str, Any] = {}
    try:
        reader = _Reader(document.decode())
        for name in reader.members():
            begins, read = long.get(name, ("", None))
            fields[name] = await read(reader) if read and reader.sees(begins) else reader.value()
        reader.end()
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested too deep
        problem = {"loc": ("body",), "msg": f"must be JSON: {error}"}
        raise RequestValidationError([problem]) from error
    return fields


async def _models(reader: _Reader) -> list[CatalogueModel]:
    return [
        await _model(reader, ("models", number)) async for number in in_slices(reader.elements())
    ]


async def _model(reader: _Reader, path: _Path) -> CatalogueModel:
    """Return a model, decoding its versions one at a time."""
    if not reader.sees("{"):
        return _valid(CatalogueModel, reader.value(), path)
    fields: dict[str, Any] = {}
    versions: ListedVersions | None = None
    for name in reader.members():
        if name == "versions" and reader.sees("["):
            versions = await _versions(reader, (*path, name))
            fields[name] = []
        else:
            fields[name] = reader.value()
    model = _valid(CatalogueModel, fields, path)
    return model if versions is None else model.model_copy(update={"versions": versions})


async def _versions(reader: _Reader, path: _Path) -> ListedVersions:
    versions = ListedVersions()
    async for number in in_slices(reader.elements()):
        versions.add(_valid(CatalogueVersion, reader.value(), (*path, number)))
    return versions


def _valid(kind: type[B], value: Any, path: _Path) -> B:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", *path, *one["loc"])} for one in error.errors()]
        ) from error


class _Reader:
    """Reads a JSON text piece by piece. Every method raises `json.JSONDecodeError`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decode = json.JSONDecoder().raw_decode
        self._at = 0
        self._skip_space()

    def members(self) -> Iterator[str]:
        """Yield the names of an object's members; the caller reads each value next."""
        self._take("{")
        while not self.sees("}"):
            name = self.value()
            if not isinstance(name, str):
                raise json.JSONDecodeError("a name must be a string", self._text, self._at)
            self._take(":")
            yield name
            self._next_or("}")
        self._take("}")

    def elements(self) -> Iterator[int]:
        """Yield the indices of a list's elements; the caller reads each value next."""
        self._take("[")
        number = 0
        while not self.sees("]"):
            yield number
            number += 1
            self._next_or("]")
        self._take("]")

    def end(self) -> None:
        """Check that nothing follows."""
        if self._at != len(self._text):
            raise json.JSONDecodeError("more than one document", self._text, self._at)

    def value(self) -> Any:
        """Read a whole value."""
        value, self._at = self._decode(self._text, self._at)
        self._skip_space()
        return value

    def sees(self, character: str) -> bool:
        """Whether this character is next."""
        return self._text.startswith(character, self._at)

    def _next_or(self, end: str) -> None:
        """Skip a comma, unless the end is next."""
        if not self.sees(end):
            self._take(",")
            if self.sees(end):
                raise json.JSONDecodeError("a comma before the end", self._text, self._at)

    def _take(self, character: str) -> None:
        if not self.sees(character):
            raise json.JSONDecodeError(f"{character!r} is missing", self._text, self._at)
        self._at += 1
        self._skip_space()

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at
