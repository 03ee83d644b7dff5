"""What an error message may quote of a value that could be a secret."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["HIDDEN", "is_secret_key", "quote"]

HIDDEN = "***"

_SECRET_KEY = re.compile(r"pas+w|secret|token|api_?key|credential|private|dsn", re.I)
# Greedy: a password may hold anything, even "@" and spaces.
_USERINFO = re.compile(r"(?<=://).*@", re.S)
_LONGEST = 80


def is_secret_key(key: str) -> bool:
    """Tell whether the last part of a dotted key sounds like a secret."""
    return bool(_SECRET_KEY.search(key.rpartition(".")[2]))


def quote(key: str, value: Any, *, secret: bool = False) -> str:
    """Show `value` in an error, or `***` where it may be secret.

    Args:
        key: the dotted key, whose last part may give a secret away.
        value: the value as it was read.
        secret: whether the schema says that it is one.
    """
    if secret or is_secret_key(key):
        return HIDDEN
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "a list of tables"
    text = _USERINFO.sub(f"{HIDDEN}@", repr(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
