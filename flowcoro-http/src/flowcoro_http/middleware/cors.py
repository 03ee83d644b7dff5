"""Cross-Origin Resource Sharing (Fetch Standard, section 3.2).

It says which other sites' scripts may read what a service answers. It protects users from
other sites, not the service from anyone: what must not be done without leave needs that
checked by the service itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from flowcoro_http._checks import check_flag, check_int, check_texts, shown_value
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Request
from flowcoro_http._response import Response
from flowcoro_http.middleware._vary import add_vary

__all__ = ["Cors"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
# Those that need no leave (section 2.2.2); listing them harms nobody.
_SAFE_HEADERS = ("accept", "accept-language", "content-language", "content-type")


class Cors(Middleware):
    """Lets scripts of other origins read responses, and answers their preflight requests.

    What is not allowed is not refused: it lacks the header fields, and so the browser keeps
    it from the script.

    Args:
        origins: who may read, such as `https://app.example`; `["*"]` for everyone.
        origin_pattern: regular expression of further origins, which must match as a whole.
        methods: with which methods.
        headers: which fields a request may have beside the harmless ones; `["*"]` for any.
        expose: which fields of a response scripts may read beside the harmless ones.
        credentials: whether browsers send cookies and let scripts read what comes.
        max_age: seconds for which a browser remembers the answer to a preflight.
        order: where it stands.

    Raises:
        ValueError: `credentials` for everyone, which would open the service to any site that a
            user visits; an origin that is none, such as one with a path; a pattern, a method or
            a name that is none.
        TypeError: an argument is of another type, such as one text for several.
    """

    def __init__(
        self,
        origins: Collection[str] = (),
        *,
        origin_pattern: str = "",
        methods: Sequence[str] = ("GET", "HEAD", "POST"),
        headers: Sequence[str] = (),
        expose: Sequence[str] = (),
        credentials: bool = False,
        max_age: int = 600,
        order: int = -800,
    ) -> None:
        super().__init__("cors", self._handle, order)
        check_texts("Cors: origins", origins, "['https://app.example']")
        _check_tokens("methods", methods, "['GET', 'PUT']")
        _check_tokens("headers", headers, "['x-request-id']")
        _check_tokens("expose", expose, "['x-request-id']")
        check_flag("Cors: credentials", credentials)
        check_int("Cors: max_age", max_age)
        self._everyone = "*" in origins
        if self._everyone and credentials:
            raise ValueError(
                "Cors: credentials for every origin: name the origins that may have them"
            )
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"Cors: {origin!r} is no origin, such as 'https://app.example:8443'"
                )
        self._origins = frozenset(origins) - {"*"}
        self._pattern = _compile(origin_pattern) if origin_pattern else None
        self._methods = [method.upper() for method in methods]
        self._any_header = "*" in headers
        self._headers = [*_SAFE_HEADERS, *(name.lower() for name in headers if name != "*")]
        self._expose = ", ".join(expose)
        self._credentials = credentials
        self._max_age = str(max_age)

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        origin = request.headers.get("origin")
        wanted = request.headers.get("access-control-request-method")
        preflight = request.method == "OPTIONS" and origin is not None and wanted is not None
        response = Response(status=204) if preflight else await call_next(request)
        if not self._everyone:
            add_vary(response, "origin")
        if origin is None or not self._allows(origin):
            return response
        # What a handler says itself would come twice, which browsers refuse.
        response.headers["access-control-allow-origin"] = "*" if self._everyone else origin
        if self._credentials:
            response.headers["access-control-allow-credentials"] = "true"
        if preflight:
            self._answer_preflight(request, response)
        elif self._expose:
            response.headers["access-control-expose-headers"] = self._expose
        return response

    def _allows(self, origin: str) -> bool:
        if self._everyone or origin in self._origins:
            return True
        return self._pattern is not None and self._pattern.fullmatch(origin) is not None

    def _answer_preflight(self, request: Request, response: Response) -> None:
        headers = self._headers
        if self._any_header:
            # `*` would not do for `Authorization`; so each that is asked for is named.
            add_vary(response, "access-control-request-headers")
            asked = ", ".join(request.headers.get_all("access-control-request-headers"))
            names = [name.strip().lower() for name in asked.split(",")]
            headers = [*headers, *(n for n in names if _TOKEN.fullmatch(n) and n not in headers)]
        response.headers["access-control-allow-methods"] = ", ".join(self._methods)
        response.headers["access-control-allow-headers"] = ", ".join(headers)
        response.headers["access-control-max-age"] = self._max_age


def _check_tokens(field: str, values: Sequence[str], example: str) -> None:
    """See that each is a name that the answer to a preflight can hold (RFC 9110, section 5.6.2)."""
    check_texts(f"Cors: {field}", values, example)
    for value in values:
        if not _TOKEN.fullmatch(value):
            raise ValueError(f"Cors: {field}: {value!r} is not a token, such as in {example}")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
        compiled.fullmatch("")  # one of bytes matches no text
    except TypeError:
        raise TypeError(
            "Cors: origin_pattern: expected a regular expression as text, "
            f"not {shown_value(pattern)}"
        ) from None
    except re.error as error:
        raise ValueError(
            f"Cors: origin_pattern {pattern!r} is no regular expression: {error}"
        ) from error
    return compiled
