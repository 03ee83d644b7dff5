"""Who the client is, when proxies stand between it and us.

Any client can send `Forwarded` or `X-Forwarded-For`; only what our own proxies have added
is worth anything, and they add at the right. So the list is read from the right, as long
as it was one of ours that wrote the entry: the first address that is not ours is the
client, and what is left of it is hearsay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flowcoro_http._checks import check_choice, check_flag
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Forwarded, Request, RequestHead
from flowcoro_http._response import Response

__all__ = ["TrustedProxies"]

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_HOPS = 50
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PAIR = re.compile(
    r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+|"(?:[^"\\]|\\.)*")"""
    r"[ \t]*"
)
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class _Hop:
    """What one proxy says of who connected to it."""

    address: str = ""
    scheme: str = ""
    host: str = ""


class TrustedProxies(Middleware):
    """Takes the client's address, scheme and host from what trusted proxies say.

    It sets `request.forwarded`, which `request.client`, `scheme`, `host` and `url` follow.
    Requests from elsewhere stay as they are. For a WebSocket call `apply` yourself.

    Args:
        networks: the proxies' addresses and networks, such as `10.0.0.0/8`; `unix` for peers
            without an address, on a Unix socket. No network of clients, or they are whoever
            they want.
        header: which fields they set: `x-forwarded` for `X-Forwarded-For`, `-Proto` and
            `-Host`, or `forwarded` (RFC 7239). Only one, since of the other kind they would
            hand on what a client sends.
        host: whether to take the host, too. Only if every proxy sets or removes it.
        order: where it stands.

    Raises:
        ValueError: a network is none, such as one with bits behind its mask.
        TypeError: `networks` is one text, or holds something else; `host` is no bool.
    """

    def __init__(
        self,
        networks: Iterable[str],
        *,
        header: Literal["x-forwarded", "forwarded"] = "x-forwarded",
        host: bool = False,
        order: int = -1100,
    ) -> None:
        super().__init__("trusted-proxies", self._handle, order)
        if isinstance(networks, str | bytes) or not isinstance(networks, Iterable):
            raise TypeError(
                "TrustedProxies: networks: expected several, such as ['10.0.0.0/8'], "
                f"not {type(networks).__name__}"
            )
        check_choice("TrustedProxies: header", header, ("x-forwarded", "forwarded"))
        check_flag("TrustedProxies: host", host)
        given = list(networks)
        self._unix = "unix" in given
        self._networks = [_as_network(network) for network in given if network != "unix"]
        self._hops = _x_forwarded_hops if header == "x-forwarded" else _forwarded_hops
        self._host = host

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        self.apply(request)
        return await call_next(request)

    def apply(self, request: RequestHead) -> None:
        """Set `request.forwarded` if a trusted proxy is connected.

        Args:
            request: a request, or a WebSocket.
        """
        peer = request.peer
        if not (self._unix if peer is None or not peer[0] else self._trusts(peer[0])):
            return
        client: tuple[str, int] | None = None
        found: _Hop | None = None
        for hop in self._hops(request):
            found = hop
            address = _parse_address(hop.address)
            if address is None:
                break  # unknown or obfuscated: nobody knows who is behind it
            client = address
            if not self._trusts(address[0]):
                break
        if found is None:
            return
        scheme = found.scheme.lower()
        ours = self._host and _HOST.fullmatch(found.host)
        request.forwarded = Forwarded(
            client=client,
            scheme=_as_scheme(scheme, request.scheme),
            host=found.host if ours else "",
        )

    def _trusts(self, address: str) -> bool:
        parsed = _parse_ip(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _as_network(text: object) -> _Network:
    # A number would be one as well, of one address that nobody meant.
    if not isinstance(text, str | _Network | _Address):
        raise TypeError(
            "TrustedProxies: networks: expected text, such as '10.0.0.0/8', "
            f"not {type(text).__name__}"
        )
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"TrustedProxies: networks: {error}") from error


def _as_scheme(given: str, own: str) -> str:
    """Read a scheme, for a WebSocket as a WebSocket's; empty for what is none."""
    if own in {"ws", "wss"}:
        return {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(given, "")
    return given if given in {"http", "https"} else ""


def _x_forwarded_hops(request: RequestHead) -> Iterator[_Hop]:
    """Yield what proxies say, the nearest first."""
    schemes = _list(request, "x-forwarded-proto")
    hosts = _list(request, "x-forwarded-host")
    for index, address in enumerate(_list(request, "x-forwarded-for") or [""]):
        yield _Hop(address, _at(schemes, index), _at(hosts, index))


def _list(request: RequestHead, name: str) -> list[str]:
    """Read a list, its last entry first; empty if it is too long to be honest."""
    items = ",".join(request.headers.get_all(name)).split(",")
    found = [item.strip() for item in reversed(items) if item.strip()]
    return found if len(found) <= _MAX_HOPS else []


def _at(values: list[str], index: int) -> str:
    """Take what belongs to a hop: one value for each, or one that is handed on for all."""
    if not values:
        return ""
    return values[index] if index < len(values) else values[-1]


def _forwarded_hops(request: RequestHead) -> Iterator[_Hop]:
    """Yield what proxies say (RFC 7239, section 4), the nearest first.

    Quotes may hold commas, so it is read from the left; if that fails nothing is believed.
    """
    text = ",".join(request.headers.get_all("forwarded"))
    hops: list[_Hop] = []
    position = 0
    pairs: dict[str, str] = {}
    while position < len(text) and len(hops) <= _MAX_HOPS:
        found = _PAIR.match(text, position)
        if found is None:
            return
        name, value = found[1].lower(), found[2]
        if name in pairs:
            return
        pairs[name] = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
        position = found.end()
        separator = text[position : position + 1]
        position += 1
        if separator in {",", ""}:
            hops.append(_Hop(pairs.get("for", ""), pairs.get("proto", ""), pairs.get("host", "")))
            pairs = {}
        elif separator != ";":
            return
    if not pairs and len(hops) <= _MAX_HOPS:
        yield from reversed(hops)


def _parse_address(text: str) -> tuple[str, int] | None:
    """Read an address, with or without a port; None for what is none (`unknown`, `_hidden`)."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    address = _parse_ip(host)
    if address is None:
        return None
    if port and not (port.isascii() and port.isdecimal() and int(port[:6]) < 65536):
        return None
    return str(address), int(port or 0)


def _parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; an IPv4 address within IPv6 as what it is."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
