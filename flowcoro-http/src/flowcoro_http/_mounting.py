"""What of a path an application that is mounted at a prefix sees."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from flowcoro_http._exchange import Head
from flowcoro_http._types import Scope

__all__ = ["path_within", "scope_below"]


def path_within(head: Head) -> bytes:
    """Return the path as it came, without the prefix this application is mounted at."""
    # Where the server has decoded it: encode what would be read as an escape.
    raw = head.raw_path or head.path.replace("%", "%25").encode()
    root = head.root_path.encode()
    return _without_root(raw, root) if root else raw


def _without_root(raw: bytes, root: bytes) -> bytes:
    if raw.startswith(root + b"/"):
        return raw[len(root) :]
    # The root is decoded, the path is not: as many segments are its as the root has.
    parts = raw.split(b"/", root.count(b"/") + 1)
    rest = parts.pop() if len(parts) > root.count(b"/") + 1 else b""
    return b"/" + rest if unquote_to_bytes(b"/".join(parts)) == root else raw


def scope_below(scope: Scope, prefix: str) -> Scope:
    """Return the scope of an application that is mounted at a prefix."""
    return {**scope, "root_path": (scope.get("root_path") or "") + prefix}
