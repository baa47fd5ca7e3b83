"""Removes secrets from texts, and addresses from texts for the public. Pure.

`redacted` is applied where a reason is made and where a line is logged; `for_public` where a body
needs no authentication, and where the control plane sends a reason to the gateway; `printable`
where a text goes to a terminal.

A process knows its own secrets (`remember`) and the names around it (`remember_names`,
`remember_location`), which are withheld everywhere. Patterns find the others.

The time is proportional to the length of any text: a pattern's scan from one start is bounded and
possessive (``+`` behind a quantifier), and a long run of characters has one start only (a
look-behind).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit

WITHHELD = "[redacted]"
_LEAST_SECRET = 8
"""Shorter values occur inside ordinary words."""

_SECRET_VARIABLE = re.compile(
    r"(?:PASSWORD|PASSWD|SECRET|TOKEN|(?:ACCESS|SECRET|API|PRIVATE|ENCRYPTION)_KEY)$",
    re.IGNORECASE,
)
_USERNAME, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_URL = re.compile(r"://[^\s/?#@:]{0,256}+:(?!\d{1,5}[/?#])([^\s@]{1,512}+)@")

_USERINFO = re.compile(r"://[^\s/?#]{0,512}@")
# A password may have a slash; digits after `://host:` are a port.
_USERINFO_WITH_SLASH = re.compile(
    r"(?<![^\s@])(?=[^\s@]*+@)([^\s@]*?://)[^\s/?#@:]{0,256}+:(?!\d{1,5}[/?#])[^\s@]++@"
)
_QUERY = re.compile(r"\?[\w.~%\[\]-]{1,128}+=[^\s\"'<>)`]{0,4096}")
_BARE_QUERY = re.compile(r"(?<![^\s\"'`(\[<=:,])(/[^\s?\"'<>]*+)(\?[^\s\"'<>)`]{4,}+)?")
"""A URL after its scheme, or a path, with a query that may have no names."""
_VALUE = r"""(?:b?"[^"\n]{0,4096}"|b?'[^'\n]{0,4096}'|[^\s,;&"')\]}]{1,4096})"""
_HEADERS = re.compile(
    r"""(authorization|cookie|-signature)(["']?\s{0,4}[:=]\s{0,4})"""
    r"""(?:b?"[^"\n]{0,4096}"|b?'[^'\n]{0,4096}'|[^\n"']{1,4096})""",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?=[acefmpst])((?:p(?:ass(?:word|wd|phrase)|wd|rivate[_-]?key)|token"
    r"|s(?:ecret|(?:hared|igning|torage|ubscription)[_-]?key)"
    r"|(?:a(?:pi|ccess|ccount|uth)|encryption|functions|master)[_-]?key"
    r")[\w.-]{0,64}+[\"']?+\s{0,4}+[:=]"
    r"|(?:signature|credential|(?<![a-z])(?:sig|pass))[\"']?+\s{0,4}+=)"
    r"(\s{0,4})" + _VALUE,
    re.IGNORECASE,
)
"""The first letter of such words goes first, which skips most of a text."""
_SCHEME = re.compile(
    r"\b(bearer|basic)(\s{1,4})(?!(?:auth|token|credential|realm)\w*\b)[\w.~+/=-]{6,4096}",
    re.IGNORECASE,
)
_LETTER_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
    r"[^-]*+(?:-(?!----END )[^-]*+)*+(?:-----END [A-Z0-9 ]{0,48}+-----)?"
)
"""A private key between its two lines, or a part of it."""
_LOOKS = re.compile(
    r"(?<![A-Za-z0-9])(?:gh[opsur]_[A-Za-z0-9]{20,255}+|github_pat_\w{20,255}+|hf_[A-Za-z0-9]{20,255}+"
    r"|glpat-[\w-]{16,255}+|xox[abeoprs]-[\w-]{10,255}+|dapi[0-9a-f]{32}(?:-\d)?|AIza[\w-]{35})"
)
"""Tokens of GitHub, Hugging Face, GitLab, Slack, Databricks and Google."""
_PREFIXES = (
    "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "hf_", "glpat-", "xox", "dapi", "aiza",
)  # fmt: skip
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,124}+\b")
_JWT = re.compile(
    r"(?<![\w-])((?:(?!\beyJ)[\w-])*+)eyJ[\w-]{8,}+\.[\w-]{8,4096}+(?:\.[\w-]{0,4096}+)?"
)
"""Group 1: the text before the token in the same run of letters."""
_HINTS = (
    "authorization", "cookie", "pass", "pwd", "secret", "token", "key", "signature", "sig",
    "credential", "bearer", "basic",
)  # fmt: skip

_ADDRESS, _PATH, _NAME = "[address]", "[path]", "[name]"
_PUBLIC = (
    (re.compile(r"\barn:[\w-]{0,32}+:[^\s\"'`<>,;)]{1,512}"), _NAME),
    (re.compile(r"\b[a-z][a-z0-9+.-]{0,15}+://[^\s\"'<>,;)]{0,2048}", re.IGNORECASE), _ADDRESS),
    (re.compile(r"\b\w*?Connection(?:Pool)?\(host=[^()\n]{0,512}+\)"), _ADDRESS),
    (re.compile(r"\bhost=[^\s,)]{1,256}(?:,? ?port=[^\s,)]{1,16})?"), _ADDRESS),
    (
        re.compile(
            r"(\b(?:server at|resolve|host ?name|host|server|endpoint|bucket|domain|valid for|match"
            r"|either of)[ :]{1,2})"
            r"(?:\"[^\"\n]{1,256}\"|'[^'\n]{1,256}'|`[^`\n]{1,256}`)",
            re.IGNORECASE,
        ),
        rf"\1{_NAME}",
    ),
    (re.compile(r"\b(Connection to )[^\s:]{1,256}+(?= timed out)"), rf"\1{_NAME}"),
    (
        re.compile(
            r"\b((?:(?:service|servname provided, or) not known|name resolution"
            r"|getaddrinfo failed)[: (]{1,3})[\w.-]{1,256}+"
        ),
        rf"\1{_NAME}",
    ),
    (re.compile(r"(?i)\b(bucket[ :]{1,2})(?=[a-z_.]{0,64}+[\d-])[\w.-]{1,256}+"), rf"\1{_NAME}"),
    (
        re.compile(r"(?i)\[(?=[^\]:]{0,64}+:[^\]:]{0,64}+:)[0-9a-f:.]{2,64}+\](?::\d{1,5})?"),
        _ADDRESS,
    ),
    (re.compile(r"(?i)(?<![\w:])(?:(?:[0-9a-f]{1,4}:){3,7}[0-9a-f:]{1,19}|::1)\b"), _ADDRESS),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b"), _ADDRESS),
    (
        re.compile(
            r"(?<![\w.-])(?!sha\d{1,3}:)(?=[\w.-]*?\b[a-z])[\w.-]++:\d{2,5}+\b(?!:)",
            re.IGNORECASE,
        ),
        _ADDRESS,
    ),
    (
        re.compile(
            r"(?<![\w.-])[\w.-]*[\w-]\.(?:internal|intranet|corp|local|localdomain|lan"
            r"|svc|amazonaws|com|net|org)(?:\.[\w-]{1,63}){0,4}\b",
            re.IGNORECASE,
        ),
        _ADDRESS,
    ),
    (re.compile(r"(\[address\][\"']?), ?\d{2,5}\b"), r"\1"),
    (re.compile(r"\bport[ =:]{1,2}\d{1,5}\b", re.IGNORECASE), "port …"),
    (re.compile(r"(?<=[\"'`])/(?!versions/\d)[^\"'`\n]{1,4096}+(?=[\"'`])"), _PATH),
    (
        re.compile(r"(?<![\w/.\]])/(?!versions/\d)[^\s/\"'`,;:()]{1,255}+"
                   r"(?:/[^\s/\"'`,;:()]{0,255}+){1,64}"),
        _PATH,
    ),
)  # fmt: skip

_JOINERS = frozenset("\u200c\u200d")
"""Some scripts need these two; they have no width and reorder nothing."""


_LEAST_NAME = 2
_MOST_LEARNED = 1024
"""Remembered names of locations: hosts and buckets are few, and the last paths are enough."""
_ORDINARY = frozenset({
    "alias", "api", "app", "artifact", "artifacts", "bucket", "data", "database", "default",
    "file", "files", "gateway", "host", "http", "https", "ledger", "local", "localhost", "main",
    "mlflow", "model", "models", "name", "node", "none", "path", "port", "prefix", "production",
    "proxy", "registry", "request", "row", "server", "service", "staging", "storage", "team",
    "test", "the", "version", "versions", "worker", "workers",
})  # fmt: skip
"""Names that reveal nothing and occur in ordinary sentences."""
_IN_ENVIRON = re.compile(r"[a-z][a-z0-9+.-]{0,32}+://[^\s,;\"'<>]+", re.IGNORECASE)


class _Known:
    """The texts that this process withholds.

    Attributes:
        pattern: Its configured secrets, in every spelling.
        names: Its configured hosts, buckets and folders.
        learned: Names of locations that it has read since, the newest last; bounded.
    """

    pattern: re.Pattern[str] | None = None
    names: frozenset[str] = frozenset()
    learned: ClassVar[dict[str, None]] = {}


def remember(secrets: Iterable[str]) -> None:
    """Withhold these secrets from now on. Called once, at start."""
    whole = {one for one in secrets if len(one) >= _LEAST_SECRET}
    spelled = {
        form
        for one in whole
        for form in (one, unquote(one), quote(one, safe=""), repr(one)[1:-1], json.dumps(one)[1:-1])
    }
    longest_first = sorted(spelled, key=len, reverse=True)
    _Known.pattern = re.compile("|".join(map(re.escape, longest_first))) if spelled else None
    for_public.cache_clear()


def secrets_of(environ: Mapping[str, str]) -> set[str]:
    """Return the secrets in a process's environment, by the names of its variables."""
    found = {value for name, value in environ.items() if _SECRET_VARIABLE.search(name)}
    for value in environ.values():
        found |= passwords_in(value)
    basic = f"{environ.get(_USERNAME, '')}:{environ.get(_PASSWORD, '')}"
    if len(basic) > _LEAST_SECRET:
        found.add(base64.b64encode(basic.encode(errors="surrogateescape")).decode())
    return found


def remember_names(names: Iterable[str]) -> None:
    """Withhold these names from the public from now on. Called once, at start."""
    _Known.names = frozenset(filter(_is_withheld, (one.strip("/") for one in names)))
    _Known.learned.clear()
    for_public.cache_clear()


def remember_location(uri: str) -> None:
    """Withhold the names in a location from the public. The oldest are dropped. Any thread."""
    for name in filter(_is_withheld, names_in(uri)):
        _Known.learned.pop(name, None)
        _Known.learned[name] = None
    for name in list(_Known.learned)[:-_MOST_LEARNED]:
        _Known.learned.pop(name, None)
    for_public.cache_clear()


def names_in(uri: str) -> set[str]:
    """Return the hosts or buckets in a URI, and its path.

    A path of one or two parts is ignored: it may be a model and its version.
    """
    try:
        parts = urlsplit(_USERINFO_WITH_SLASH.sub(r"\1", uri))
    except ValueError:
        return set()
    hosts = {re.sub(r":\d*\Z", "", one).strip("[]") for one in parts.netloc.split("@")}
    path = unquote(parts.path).strip("/")
    paths = {path, quote(path)} if path.count("/") > 1 else set()
    return {*hosts, *(one.lower() for one in hosts), *paths} - {""}


def hosts_of(environ: Mapping[str, str]) -> set[str]:
    """Return the hosts of the URLs in a process's environment: registry, storages, proxies."""
    return {
        name
        for value in environ.values()
        for found in _IN_ENVIRON.finditer(value)
        for name in names_in(found[0])
        if "/" not in name
    }


def _is_withheld(name: str) -> bool:
    """Whether a name is withheld: it is neither an ordinary word nor a number."""
    if len(name) < _LEAST_NAME or name.lower() in _ORDINARY:
        return False
    return any(one.isalpha() for one in name) or "." in name


def _without_names(text: str) -> str:
    """Return a text without the known names."""
    known = {*_Known.names, *_Known.learned}
    found = sorted((name for name in known if name in text), key=len, reverse=True)
    if not found:
        return text
    either = "|".join(map(re.escape, found))
    return re.sub(rf"(?<![\w-])/?(?:{either})(?::\d{{1,5}}\b)?(?![\w-])", _NAME, text)


def passwords_in(text: str) -> set[str]:
    """Return the passwords of the URLs in a text."""
    return {found[1] for found in _URL.finditer(text)} if "@" in text else set()


def names_user(url: str) -> bool:
    """Whether a URL has a user or a password."""
    return any(pattern.search(url) for pattern in (_USERINFO_WITH_SLASH, _USERINFO))


def redacted(text: str) -> str:
    """Return a text without secrets: user info, query strings, credentials, signatures."""
    if _Known.pattern is not None:
        text = _Known.pattern.sub(WITHHELD, text)
    if "://" in text and "@" in text:
        text = _USERINFO_WITH_SLASH.sub(r"\1", text)
        text = _USERINFO.sub("://", text)
    if "?" in text:
        text = _QUERY.sub(f"?{WITHHELD}", text)
        text = _BARE_QUERY.sub(_without_query, text)
    if "-----BEGIN " in text:
        text = _LETTER_KEY.sub(WITHHELD, text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        text = _HEADERS.sub(rf"\1\2{WITHHELD}", text)
        text = _NAMED.sub(rf"\1\2{WITHHELD}", text)
        text = _SCHEME.sub(rf"\1\2{WITHHELD}", text)
    if "eyj" in lowered:
        text = _JWT.sub(rf"\1{WITHHELD}", text)
    if "akia" in lowered or "asia" in lowered:
        text = _AWS_KEY.sub(WITHHELD, text)
    if any(prefix in lowered for prefix in _PREFIXES):
        text = _LOOKS.sub(WITHHELD, text)
    return text


def _without_query(found: re.Match[str]) -> str:
    return f"{found[1]}?{WITHHELD}" if found[2] else found[1]


@lru_cache(1024)
def for_public(text: str) -> str:
    """Return a text without secrets, and without hosts, ports, buckets and paths of this system."""
    text = redacted(text)
    for pattern, instead in _PUBLIC:
        text = pattern.sub(instead, text)
    return _without_names(text)


def printable(text: str) -> str:
    """Return a text in one line, without control and reordering characters."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in _JOINERS else one.encode("unicode_escape").decode()
        for one in text
    )
