"""How often a client may ask: a token bucket for each.

A bucket holds `burst` tokens, gets `limit` of them in `per` seconds, and a request takes
one. It is kept as the time at which it will be full again (the generic cell rate
algorithm's "theoretical arrival time"): one number for each client, and none for one whose
bucket is full. At most `max_keys` are kept; then the one who has asked least lately is
forgotten, which to him is a gift.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Callable

import anyio

from flowcoro_http._checks import check_int, check_seconds, check_text
from flowcoro_http._declared import check_question
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._problem import HttpError
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["RateLimit", "client_key"]


def client_key(request: Request) -> str | None:
    """Tell clients apart by address; of IPv6 by the first 64 bits, which one client has.

    Put `TrustedProxies` before it, where there are proxies.
    """
    if request.client is None:
        return None
    text = request.client[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return text


class RateLimit(Middleware):
    """Refuses requests of a client that asks too often (429, with `Retry-After`).

    `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) tell clients
    what they have left. Each worker process counts for itself, and for
    all of its threads.

    Args:
        limit: requests in `per` seconds, in the long run.
        per: seconds.
        burst: requests at once, after a pause; `limit` when 0.
        key: tells clients apart; None for a request that is not limited.
        max_keys: clients that are remembered, some 150 bytes each.
        name: of the policy, where there are several.
        order: where it stands.

    Raises:
        ValueError: a number is not positive, or the name not of printable ASCII.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        limit: int,
        per: float = 60.0,
        *,
        burst: int = 0,
        key: Callable[[Request], str | None] = client_key,
        max_keys: int = 100_000,
        name: str = "default",
        order: int = -700,
    ) -> None:
        super().__init__(f"rate-limit-{name}", self._handle, order)
        check_int("RateLimit: limit", limit, least=1)
        check_seconds("RateLimit: per", per, positive=True, finite=True)
        check_int("RateLimit: burst", burst)
        if key is None:
            raise TypeError("RateLimit: key: expected a function, not None")
        check_question("RateLimit", "key", key, ("request",))
        check_int("RateLimit: max_keys", max_keys, least=1)
        check_text("RateLimit: name", name)
        if not (name.isascii() and name.isprintable()) or set(name) & set('"\\'):
            raise ValueError(f"RateLimit: name {name!r}: expected printable ASCII without quotes")
        self._interval = per / limit
        self._burst = burst or limit
        self._key = key
        self._max_keys = max_keys
        # Of all the event loops that serve the router, in their threads.
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._label = f'"{name}"'
        self._policy = f"{self._label};q={self._burst};w={math.ceil(self._interval * self._burst)}"

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        key = self._key(request)
        if key is None:
            return await call_next(request)
        now = anyio.current_time()
        with self._lock:
            wait, left, full = self._take(key, now)
        headers = {
            "ratelimit-policy": self._policy,
            "ratelimit": f"{self._label};r={left};t={math.ceil(full - now)}",
        }
        if wait > 0:
            headers["retry-after"] = str(math.ceil(wait))
            raise HttpError(429, "too many requests of this client", headers=headers)
        response = await call_next(request)
        for field, value in headers.items():
            response.headers.add(field, value)
        return response

    def _take(self, key: str, now: float) -> tuple[float, int, float]:
        """Take a token.

        Returns:
            Seconds until there is one, 0 if one was taken; the tokens left; when all will be
            back.
        """
        full_at = max(self._full_at.get(key, now), now)
        after = full_at + self._interval
        # A little more than nothing, lest rounding refuse what is due just now.
        wait = after - now - self._interval * self._burst - 1e-9
        if wait > 0:
            return wait, 0, full_at
        self._full_at[key] = after
        self._full_at.move_to_end(key)
        self._forget(now)
        left = self._burst - (after - now) / self._interval
        return 0.0, max(int(left + 1e-9), 0), after

    def _forget(self, now: float) -> None:
        """Drop some who have all their tokens, and whoever is too many."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._max_keys:
                break
            del self._full_at[oldest]
