"""What may be shown of a text with URLs in it. Pure."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"(?<=://)[^\s/?#]*@")


def without_userinfo(text: str) -> str:
    """Return a text whose URLs name neither user nor password."""
    return _USERINFO.sub("", text)
