"""The versions of a model as they are listed, each kept as its document until somebody asks.

A registry lists thousands of versions, and few are ever looked at. As objects they would be
hundreds of thousands, which Python's garbage collector visits again and again, for a tenth of a
second at a time; as bytes it does not see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from gateway.contract import CatalogueVersion


class ListedVersions(Sequence[CatalogueVersion]):
    """Reads as the list of versions that it was made of. Immutable."""

    __slots__ = ("_documents",)

    def __init__(self, versions: Iterable[CatalogueVersion] = ()) -> None:
        """Keep the documents."""
        self._documents: dict[int, str] = {}
        for version in versions:
            self.add(version)

    def add(self, version: CatalogueVersion) -> None:
        """Put one more at the end; only who is still making the list does."""
        # An older control plane knows fewer fields: a field that it left out stays out.
        self._documents[version.version] = version.model_dump_json(exclude_unset=True)

    def of(self, number: int) -> CatalogueVersion | None:
        """Return the version of this number; None: it is not listed."""
        document = self._documents.get(number)
        return None if document is None else CatalogueVersion.model_validate_json(document)

    def document(self, number: int) -> str | None:
        """Return a version as it is kept, to be compared with another; None: it is not listed."""
        return self._documents.get(number)

    def has(self, number: int) -> bool:
        """Whether there is a version of this number. Reads none."""
        return number in self._documents

    def numbers(self) -> Iterable[int]:
        """Return the numbers of all versions. Reads none."""
        return self._documents.keys()

    def __iter__(self) -> Iterator[CatalogueVersion]:
        """Read them one after the other."""
        return map(CatalogueVersion.model_validate_json, self._documents.values())

    def __len__(self) -> int:
        """Count them."""
        return len(self._documents)

    @overload
    def __getitem__(self, index: int) -> CatalogueVersion: ...
    @overload
    def __getitem__(self, index: slice) -> list[CatalogueVersion]: ...
    def __getitem__(self, index: int | slice) -> CatalogueVersion | list[CatalogueVersion]:
        """Read as a list does."""
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        """Compare as a list does."""
        if isinstance(other, ListedVersions):
            return self._documents == other._documents
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]  # as a list
