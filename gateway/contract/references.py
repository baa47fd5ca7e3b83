"""Names of models, versions, aliases and artifacts, for both planes.

Standard library only; the lowest layer of both packages.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from unicodedata import normalize

LATEST = "latest"
"""The selector for the highest version activated as default. MLflow refuses it as an alias name, so
the control plane activates it under this name, like any alias."""

_ALIAS = re.compile(r"[\w-]{1,255}\Z")
"""Letters and digits of every script, as in MLflow 3.17.2, but no line break at the end, which
MLflow accepts."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_MAX_NAME_CHARACTERS = 512
MAX_VERSION = 2**53
"""Versions travel through JSON; above this a reader may round them."""


class InvalidReferenceError(ValueError):
    """A name, version, alias or digest is invalid. The message says why."""


Selector = int | str
"""The name of a version for callers: its number, or an alias (`LATEST` included)."""


def parse_model_name(text: str) -> str:
    """Return ``text`` if it can name a registered model.

    MLflow allows anything but ``/`` and ``:``, spaces and unicode included.

    Raises:
        InvalidReferenceError: Empty, too long, or with a character that MLflow refuses.
    """
    if not text or len(text) > _MAX_NAME_CHARACTERS:
        msg = f"a model's name must have 1 to {_MAX_NAME_CHARACTERS} characters, not {len(text)}"
        raise InvalidReferenceError(msg)
    if "/" in text or ":" in text or "\x00" in text:
        raise InvalidReferenceError("a model's name must not contain '/', ':' or a null character")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise InvalidReferenceError("a model's name must be valid Unicode") from error
    return text


def parse_version(text: str) -> int:
    """Return the version number that ``text`` spells in decimal digits.

    Raises:
        InvalidReferenceError: Not a whole number from 1 to 2**53.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_VERSION)):
        raise InvalidReferenceError("a version must be a whole number, written in digits")
    version = int(text)
    if not 1 <= version <= MAX_VERSION:
        raise InvalidReferenceError(f"a version must be a whole number from 1 to {MAX_VERSION}")
    return version


def parse_alias(text: str) -> str:
    """Return ``text`` if it can be an alias; two spellings of a letter are two aliases.

    Digits alone always mean a version, so an alias of digits, which MLflow accepts, is refused.

    Raises:
        InvalidReferenceError: Not letters, digits, ``_`` or ``-``; or digits alone.
    """
    if not _ALIAS.match(text):
        raise InvalidReferenceError(
            f"an alias must have 1 to 255 letters, digits, '_' or '-'{_composed(text)}"
        )
    if text.isdigit():
        raise InvalidReferenceError(
            "digits always mean a version, never an alias; write a version with the digits 0 to 9"
        )
    return text


def _composed(text: str) -> str:
    """Return the advice for accents that are characters of their own, as some keyboards write."""
    if len(text) > _MAX_NAME_CHARACTERS or not _ALIAS.match(normalize("NFC", text)):
        return ""
    return ": write a letter and its accent as one character (Unicode's form NFC)"


def parse_selector(text: str) -> Selector:
    """Read a selector: ``3``, ``champion``, ``@champion`` or ``latest``.

    Raises:
        InvalidReferenceError: Neither a version nor an alias.
    """
    if text.isascii() and text.isdigit():
        return parse_version(text)
    return parse_alias(text.removeprefix("@"))


def parse_digest(text: str) -> str:
    """Return ``text`` if it is a digest: ``sha256:`` and 64 lower-case hexadecimal digits.

    Raises:
        InvalidReferenceError: It is not a digest.
    """
    if not _DIGEST.match(text):
        raise InvalidReferenceError("a digest must be 'sha256:' and 64 lower-case hex digits")
    return text


def digest_hex(digest: str) -> str:
    """Return the hexadecimal digits of a digest, its folder's name in the artifact store."""
    return parse_digest(digest).removeprefix("sha256:")


class AliasRef(NamedTuple):
    """One alias of one registered model."""

    model: str
    alias: str


class ArtifactRef(NamedTuple):
    """One version of a registered model with exactly these bytes. A replica serves one."""

    model: str
    version: int
    digest: str

    def __str__(self) -> str:
        """Return ``model/version``."""
        return f"{self.model}/{self.version}"
