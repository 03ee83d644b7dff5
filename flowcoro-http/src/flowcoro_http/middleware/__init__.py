"""Middleware that most services want: put it on a router with `Router.use`.

Each works on requests and responses alone, whatever server speaks HTTP, and stands by
default where it belongs, whichever was registered first. Outermost first:

| order | middleware | why there |
|---|---|---|
| -1100 | `TrustedProxies` | all others need the client's address and scheme |
| -1050 | `RequestId` | refusals have an id too |
| -1000 | flowcoro-observability's | it counts what is refused below |
| -900 | `SecurityHeaders` | on every response, refusals included |
| -800 | `Cors` | a script may read a refusal only with its header fields |
| -700 | `RateLimit` | who asks too much takes no place from others |
| -600 | `Overload` | what cannot be done in time is not begun |
| -500 | `Deadline` | from here on time counts: for what waits and what works |
| -400 | `BodyLimit` | before anything reads the body |
| -300 | `Compression` | after all that changes bodies |
| -200 | `Sessions` | next to the handlers, which use them |
| 0 | your own | |

Middleware goes around requests; WebSockets pass it by.
"""

from __future__ import annotations

from flowcoro_http.middleware.body_limit import BodyLimit
from flowcoro_http.middleware.compression import Compression
from flowcoro_http.middleware.cors import Cors
from flowcoro_http.middleware.deadline import Deadline
from flowcoro_http.middleware.overload import Overload
from flowcoro_http.middleware.rate_limit import RateLimit, client_key
from flowcoro_http.middleware.request_id import RequestId
from flowcoro_http.middleware.security_headers import SecurityHeaders
from flowcoro_http.middleware.sessions import Session, Sessions
from flowcoro_http.middleware.trusted_proxies import TrustedProxies

__all__ = [
    "BodyLimit",
    "Compression",
    "Cors",
    "Deadline",
    "Overload",
    "RateLimit",
    "RequestId",
    "SecurityHeaders",
    "Session",
    "Sessions",
    "TrustedProxies",
    "client_key",
]
