"""Encoders: how a handler's value becomes the bytes of a response.

The built-in JSON is one of them and comes through the same hook as a stranger's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from flowcoro_http._checks import check_text
from flowcoro_http._declared import check_count

__all__ = ["JSON", "EncoderSet", "ResponseEncoder"]


@dataclass(frozen=True, slots=True)
class ResponseEncoder:
    """Encodes values of some types as one media type (`flowcoro_http_response_encoders`).

    Attributes:
        name: unique among encoders.
        content_type: the `Content-Type` of what it makes.
        encode: makes the bytes; raises for what it cannot encode.
        types: the types it takes, subclasses included; `(object,)` takes everything.

    Raises:
        TypeError: an attribute is of another type.
    """

    name: str
    content_type: str
    encode: Callable[[Any], bytes]
    types: tuple[type, ...] = (object,)

    def __post_init__(self) -> None:
        check_text("encoder: name", self.name)
        where = f"encoder {self.name!r}"
        check_text(f"{where}: content_type", self.content_type)
        check_count(where, self.encode, ("value",), plain=True)
        types: object = self.types
        if not isinstance(types, tuple) or not all(isinstance(each, type) for each in types):
            raise TypeError(f"{where}: types: expected a tuple of classes, got {self.types!r}")

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()


JSON = ResponseEncoder("json", "application/json", msgspec.json.encode)
"""The built-in encoder: JSON by msgspec."""


class EncoderSet:
    """Chooses an encoder by the type of the value, then by the `Accept` header.

    An encoder for a narrower type wins over one for `object`; among equals JSON comes
    first, unless the client prefers another. A client that accepts none of them gets
    the first all the same (RFC 9110, section 12.4.1, allows that).

    Args:
        encoders: what there is to choose from; JSON is always among them.

    Attributes:
        only: the one that there is, when there is no choice.
    """

    def __init__(self, encoders: Sequence[ResponseEncoder] = (JSON,)) -> None:
        names = [encoder.name for encoder in encoders]
        found = list(encoders) if JSON.name in names else [JSON, *encoders]
        self._encoders = sorted(found, key=lambda e: (object in e.types, e.name != JSON.name))
        self.only = self._encoders[0] if len(self._encoders) == 1 else None

    def choose(self, value: object, accept: Callable[[], str]) -> ResponseEncoder:
        """Return the encoder for `value`.

        Args:
            value: what is to be encoded.
            accept: gives the `Accept` header; asked only when there is a choice.
        """
        if self.only is not None:
            return self.only
        fitting = [e for e in self._encoders if isinstance(value, e.types)]
        narrow = [e for e in fitting if object not in e.types]
        candidates = narrow or fitting or [JSON]
        if len(candidates) == 1:
            return candidates[0]
        wanted = _parse_accept(accept())
        return max(candidates, key=lambda e: _quality(e.media_type, wanted))


def _parse_accept(header: str) -> dict[str, float]:
    wanted: dict[str, float] = {}
    for item in header.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media:
            wanted[media] = quality
    return wanted or {"*/*": 1.0}


def _quality(media_type: str, wanted: dict[str, float]) -> float:
    group = media_type.partition("/")[0]
    for pattern in (media_type, f"{group}/*", "*/*"):
        if pattern in wanted:
            return wanted[pattern]
    return 0.0
