"""The listed versions of a model, each kept as a document until it is read.

A registry lists thousands of versions, and few are ever read. As objects, they would keep Python's
garbage collector busy for a tenth of a second at a time; as documents, they are invisible to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.contract import CatalogueVersion


class ListedVersions:
    """Versions that are decoded on access, and compare like a list. Immutable once made."""

    __slots__ = ("_decoded", "_documents")

    def __init__(self, versions: Iterable[CatalogueVersion] = ()) -> None:
        self._documents: dict[int, str] = {}
        self._decoded: dict[int, CatalogueVersion] = {}
        for version in versions:
            self.add(version)

    def add(self, version: CatalogueVersion) -> None:
        """Append a version, while the sequence is being made."""
        self._documents[version.version] = version.model_dump_json(exclude_unset=True)

    def of(self, number: int) -> CatalogueVersion | None:
        """Return the version of this number, or None if it is not listed. Kept once decoded."""
        known = self._decoded.get(number)
        if known is None and (document := self._documents.get(number)) is not None:
            known = self._decoded[number] = CatalogueVersion.model_validate_json(document)
        return known

    def document(self, number: int) -> str | None:
        """Return the document of a version, for comparisons, or None if it is not listed."""
        return self._documents.get(number)

    def has(self, number: int) -> bool:
        """Whether a version is listed. Decodes none."""
        return number in self._documents

    def __iter__(self) -> Iterator[CatalogueVersion]:
        """Decode the versions one by one."""
        return map(CatalogueVersion.model_validate_json, self._documents.values())

    def __len__(self) -> int:
        """Return the number of versions."""
        return len(self._documents)

    def __eq__(self, other: object) -> bool:
        """Compare like a list."""
        if isinstance(other, ListedVersions):
            return self._documents == other._documents
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]  # like a list
