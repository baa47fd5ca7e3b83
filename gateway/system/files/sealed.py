"""JSON objects with a checksum in their last line, which detects any damage. Pure.

Objects of an older release have none, and are accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_MEMBER = "sha256"
_SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')
_END = b"\n}"


class AlteredError(Exception):
    """A document is damaged. The message says what is wrong, after "it"."""


class NewerFormatError(Exception):
    """A newer release wrote a document: its ``format_version`` is unknown here."""

    def __init__(self, format_version: int) -> None:
        super().__init__(format_version)
        self.format_version = format_version


def seal(document: bytes) -> bytes:
    """Return a document with its checksum.

    Args:
        document: A JSON object with members, indented by one space.
    """
    body = document.removesuffix(_END)
    return b'%b,\n "%b": "%b"\n}\n' % (body, _MEMBER.encode(), _checksum(body))


def is_sealed(content: bytes) -> bool:
    """Return whether a document has a checksum.

    Raises:
        AlteredError: Its content does not match its checksum.
    """
    found = _SEAL.search(content)
    if found is not None and found[1] != _checksum(content[: found.start()]):
        raise AlteredError("does not have the content of its checksum")
    return found is not None


def unseal(content: bytes) -> dict[str, Any]:
    """Return the members of a document.

    Raises:
        AlteredError: It is damaged, or not a JSON object.
    """
    sealed = is_sealed(content)
    try:
        members = json.loads(content)
        if not sealed:  # refuse infinities and lone surrogates, which can be read but not written
            json.dumps(members, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise AlteredError("is nested too deep") from error
    except ValueError as error:
        raise AlteredError("is not JSON" if content else "is empty") from error
    if not isinstance(members, dict):
        raise AlteredError("is not a JSON object")
    if (members.pop(_MEMBER, None) is not None) is not sealed:
        raise AlteredError("has a checksum that is not where it was written")
    return members


def unseal_known(content: bytes, known_format: int) -> dict[str, Any]:
    """Return the members of a document whose ``format_version`` is not beyond a known one.

    Only a valid checksum proves that a newer release wrote a document that claims to be newer. A
    release may change everything in a document except its seal.

    Raises:
        AlteredError: As of `unseal`, or it claims to be newer without a checksum.
        NewerFormatError: A newer release wrote it.
    """
    members = unseal(content)
    version = members.get("format_version")
    if isinstance(version, int) and version > known_format:
        if is_sealed(content):
            raise NewerFormatError(version)
        raise AlteredError(f"claims format {version} and has no checksum")
    return members


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
