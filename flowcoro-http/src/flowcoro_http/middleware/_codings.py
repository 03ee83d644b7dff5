"""Content codings (RFC 9110, section 8.4.1): which there are, and which a client wants.

gzip is always there; zstd and Brotli are where something here can do them.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

__all__ = ["CODINGS", "Compressor", "choose_coding", "make_coding"]


class Compressor(Protocol):
    """Compresses one body."""

    def compress(self, data: bytes, /) -> bytes:
        """Take bytes; return what is ready."""
        ...

    def flush(self) -> bytes:
        """Return all that it has taken, so that it can be read."""
        ...

    def finish(self) -> bytes:
        """Return the end."""
        ...


Coding: TypeAlias = Callable[[], Compressor]
"""Makes a new compressor."""

CODINGS = ("zstd", "br", "gzip")
"""The names, in the order of our preference."""


class _Gzip:
    def __init__(self, level: int) -> None:
        self._z = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self.compress = self._z.compress

    def flush(self) -> bytes:
        return self._z.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._z.flush(zlib.Z_FINISH)


class _Zstd:
    """By Python 3.14's own module, or what brings it to earlier ones."""

    def __init__(self, module: Any, level: int) -> None:
        self._z = module.ZstdCompressor(level=level)

    def compress(self, data: bytes, /) -> bytes:
        compressed: bytes = self._z.compress(data)
        return compressed

    def flush(self) -> bytes:
        flushed: bytes = self._z.flush(self._z.FLUSH_BLOCK)
        return flushed

    def finish(self) -> bytes:
        end: bytes = self._z.flush(self._z.FLUSH_FRAME)
        return end


class _Zstandard:
    """By the distribution zstandard."""

    def __init__(self, module: Any, level: int) -> None:
        self._z = module.ZstdCompressor(level=level).compressobj()
        self._block = module.COMPRESSOBJ_FLUSH_BLOCK
        self.compress = self._z.compress

    def flush(self) -> bytes:
        flushed: bytes = self._z.flush(self._block)
        return flushed

    def finish(self) -> bytes:
        end: bytes = self._z.flush()
        return end


class _Brotli:
    def __init__(self, module: Any, level: int) -> None:
        self._z = module.Compressor(quality=level)

    def compress(self, data: bytes, /) -> bytes:
        compressed: bytes = self._z.process(data)
        return compressed

    def flush(self) -> bytes:
        flushed: bytes = self._z.flush()
        return flushed

    def finish(self) -> bytes:
        end: bytes = self._z.finish()
        return end


_MODULES: Mapping[str, Sequence[tuple[str, Callable[[Any, int], Compressor]]]] = {
    "zstd": (("compression.zstd", _Zstd), ("zstandard", _Zstandard), ("backports.zstd", _Zstd)),
    "br": (("brotli", _Brotli), ("brotlicffi", _Brotli)),
}


def make_coding(name: str, level: int) -> Coding | None:
    """Return what makes compressors of a coding; None if nothing here can do it.

    Args:
        name: one of `CODINGS`.
        level: how hard it tries, in the coding's own numbers.
    """
    if name == "gzip":
        return lambda: _Gzip(level)
    for module_name, make in _MODULES[name]:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        return lambda make=make, module=module: make(module, level)  # type: ignore[misc]
    return None


def choose_coding(accept: str | None, offered: Sequence[str]) -> str:
    """Choose by `Accept-Encoding` (RFC 9110, section 12.5.3).

    Args:
        accept: the field; None when there is none, which means nothing is wanted.
        offered: what there is, in the order of our preference.

    Returns:
        The coding, or empty for none.
    """
    if not accept:
        return ""
    wanted: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name:
            wanted[name.removeprefix("x-") if name == "x-gzip" else name] = _quality(parameters)
    rest = wanted.get("*", 0.0)
    best = max(offered, key=lambda name: wanted.get(name, rest), default="")
    quality = wanted.get(best, rest)
    # As they are is always possible, and so wins over what is wanted less.
    return best if quality > 0 and quality >= wanted.get("identity", 0.0) else ""


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0.0 <= quality <= 1.0 else 0.0
    return 1.0
