"""`[http]` of `flowcoro.toml`, and the limits that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from flowcoro_http._checks import check_int, check_seconds
from flowcoro_http._request import DEFAULT_MAX_BODY_BYTES
from flowcoro_http._websocket import DEFAULT_MAX_MESSAGE_BYTES

__all__ = ["HttpConfig", "Limits"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Size = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a router allows its clients.

    Attributes:
        max_body_bytes: the largest request body that is read.
        max_message_bytes: the largest WebSocket message that is received.
        body_timeout: seconds to wait for more of a body; 0 waits for ever.
        request_timeout: seconds until a handler is cancelled with 504; 0 is never.

    Raises:
        TypeError: one is no number.
        ValueError: one is negative.
    """

    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    body_timeout: float = 30.0
    request_timeout: float = 0.0

    def __post_init__(self) -> None:
        check_int("Limits: max_body_bytes", self.max_body_bytes)
        check_int("Limits: max_message_bytes", self.max_message_bytes)
        for what in ("body_timeout", "request_timeout"):
            check_seconds(f"Limits: {what}", getattr(self, what))


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[http]`: how requests are served."""

    backend: str = "native"
    """Name of the server backend: `native` (HTTP/1.1) or `hypercorn` (HTTP/2 too)."""
    max_body_bytes: Size = DEFAULT_MAX_BODY_BYTES
    """Largest request body that is read, in bytes; more is answered with 413."""
    max_message_bytes: Size = DEFAULT_MAX_MESSAGE_BYTES
    """Largest WebSocket message that is received, in bytes; more closes with 1009."""
    ping_interval: Seconds = 20.0
    """Seconds after which a silent WebSocket peer is pinged, and as many to answer; 0 is never."""
    body_timeout: Seconds = 30.0
    """Seconds to wait for more of a request body, then 408; 0 waits for ever."""
    request_timeout: Seconds = 0.0
    """Seconds until a handler is cancelled with 504; 0 is never."""
    keep_alive_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Seconds that a connection may wait for its next request to be complete."""
    head_timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Seconds that a request's head may take to come, then 408 (`native`)."""
    send_timeout: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """Seconds to wait for a client that takes nothing of its response (`native`)."""
    max_connections: Size = 0
    """How many connections there may be; 0 is no limit (`native`)."""
    max_memory: Size = 256 * 1024 * 1024
    """Bytes of requests that may wait in memory, of all connections, then 503 (`native`)."""
    max_head_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 64 * 1024
    """Largest head of a request, in bytes, then 431 (`native`)."""
    max_headers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 100
    """How many header fields a request may have, then 431 (`native`)."""
    openapi: bool = True
    """Whether routers serve their OpenAPI document."""
    docs: bool = True
    """Whether routers serve a page that shows the document, at `/docs`."""
    access_log: bool = False
    """Whether each request is logged, by `flowcoro.http.access`."""
    backlog: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)] = 1024
    """Connections that may wait to be accepted."""
    certfile: str = ""
    """TLS certificate chain (PEM); with `keyfile`, the server speaks HTTPS."""
    keyfile: str = ""
    """TLS private key (PEM)."""
    http3: bool = False
    """Whether HTTP/3 is spoken too, over UDP on the same port (`hypercorn`, with TLS)."""

    def limits(self) -> Limits:
        """Return the part that a router enforces."""
        return Limits(
            self.max_body_bytes, self.max_message_bytes, self.body_timeout, self.request_timeout
        )
