"""Log lines: their shape, their writer, and what is redacted from them."""

from gateway.system.logs.config import configure_logging
from gateway.system.logs.redaction import (
    for_public,
    hosts_of,
    names_in,
    names_user,
    passwords_in,
    printable,
    redacted,
    remember,
    remember_location,
    remember_names,
    secrets_of,
)
from gateway.system.logs.writer import LogWriter

__all__ = [
    "LogWriter",
    "configure_logging",
    "for_public",
    "hosts_of",
    "names_in",
    "names_user",
    "passwords_in",
    "printable",
    "redacted",
    "remember",
    "remember_location",
    "remember_names",
    "secrets_of",
]
