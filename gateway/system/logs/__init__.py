"""Log lines: their shape, their writer, and redaction."""

from gateway.system.logs.config import configure_logging as configure_logging
from gateway.system.logs.redaction import (
    for_public as for_public,
    hosts_of as hosts_of,
    names_in as names_in,
    names_user as names_user,
    passwords_in as passwords_in,
    printable as printable,
    redacted as redacted,
    remember as remember,
    remember_location as remember_location,
    remember_names as remember_names,
    secrets_of as secrets_of,
)
from gateway.system.logs.writer import LogWriter as LogWriter
