"""What a client and its requests are given, checked before anything is made or sent of it.

Header fields, bodies, cookies, passwords and URLs may be secrets: no error repeats them. httpx is
imported where something of its own may have been given, and not before.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from flowcoro_http._checks import (
    check_flag,
    check_int,
    check_seconds,
    check_text,
    shown_value,
)

__all__ = [
    "check_auth",
    "check_headers",
    "check_limits",
    "check_method",
    "check_retries",
    "check_settings",
    "check_url",
    "check_verify",
    "is_jar",
    "refuse_headers",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ABSOLUTE = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_PROXY = re.compile(r"(https?|socks5h?)://[^/?#]", re.IGNORECASE)
_HEADERS = "HttpClient: headers"
_TIMEOUTS = ("timeout", "connect_timeout", "read_timeout", "pool_timeout")
_FLAGS = ("http2", "trust_env", "follow_redirects")


def check_settings(settings: Mapping[str, Any], name: object, health_path: object) -> None:
    """See that a client can work with what it is made with.

    Args:
        settings: by name, as `HttpClient` has them.
        name: the component's.
        health_path: what is asked for its health.

    Raises:
        TypeError: one is of another type.
        ValueError: one has a value that makes no sense.
    """
    check_text("HttpClient: name", name)
    if not name:
        raise ValueError("HttpClient: name: expected one, such as 'httpclient'; it is empty")
    if health_path:
        check_text("HttpClient: health_path", health_path)
    for field in _TIMEOUTS:
        check_seconds(f"HttpClient: {field}", settings[field], optional=True)
    check_int("HttpClient: max_connections", settings["max_connections"], least=1)
    check_int("HttpClient: max_idle_connections", settings["max_idle_connections"])
    check_limits("HttpClient", settings["max_connections_per_origin"], settings["keepalive_expiry"])
    check_int("HttpClient: max_body_bytes", settings["max_body_bytes"], optional=True)
    check_retries("HttpClient", settings["retries"])
    for field in _FLAGS:
        check_flag(f"HttpClient: {field}", settings[field])
    check_verify("HttpClient", settings["verify"])
    check_headers(settings["headers"], "ascii")
    check_auth(settings["auth"])
    _check_cookies(settings["cookies"])
    _check_places(settings["base_url"], settings["proxy"], settings["transport"])


def check_limits(owner: str, per_origin: object, keepalive_expiry: object) -> None:
    """See that a pool can keep to its limits."""
    check_int(f"{owner}: max_connections_per_origin", per_origin, least=1, optional=True)
    check_seconds(f"{owner}: keepalive_expiry", keepalive_expiry, optional=True)


def check_retries(owner: str, retries: object) -> None:
    """See that it is a policy, or how often."""
    if isinstance(retries, int) and not isinstance(retries, bool):
        check_int(f"{owner}: retries", retries)
        return
    from flowcoro_http._client._retry import RetryPolicy

    if not isinstance(retries, RetryPolicy):
        raise TypeError(
            f"{owner}: retries: expected an integer, 0 or more, or a RetryPolicy, "
            f"not {shown_value(retries)}"
        )


def check_verify(owner: str, verify: object) -> None:
    """See that it tells how certificates are verified."""
    if not isinstance(verify, bool | ssl.SSLContext):
        raise TypeError(
            f"{owner}: verify: expected True, False or a context, such as of "
            f"ssl.create_default_context(cafile=…), not {type(verify).__name__}"
        )


def check_auth(auth: object) -> None:
    """See that it is a user and a password, or something of httpx's."""
    if auth is None or callable(auth):
        return
    if isinstance(auth, tuple):
        if len(auth) == 2 and all(isinstance(part, str | bytes) for part in auth):
            return
        raise TypeError("HttpClient: auth: expected a user and a password, both of them text")
    import httpx

    if not isinstance(auth, httpx.Auth | type(httpx.USE_CLIENT_DEFAULT)):
        raise TypeError(
            "HttpClient: auth: expected (user, password) or an httpx.Auth, "
            f"not {type(auth).__name__}"
        )


def is_jar(cookies: object) -> bool:
    """Tell whether it knows of each cookie to which hosts it goes, as httpx's does."""
    return hasattr(getattr(cookies, "jar", cookies), "set_cookie")


def _check_cookies(cookies: object) -> None:
    if is_jar(cookies):
        return
    if not isinstance(cookies, Mapping):
        raise TypeError(
            "HttpClient: cookies: expected a mapping of names to values, or an httpx.Cookies, "
            f"not {type(cookies).__name__}"
        )
    for name, value in cookies.items():
        check_text("HttpClient: cookies: a name", name)
        check_text(f"HttpClient: cookies: the value of {name!r}", value)


def _check_places(base_url: object, proxy: object, transport: object) -> None:
    check_url("HttpClient: base_url", base_url)
    # A transport of one's own may know other schemes.
    if base_url and transport is None and not _ABSOLUTE.match(str(base_url)):
        raise ValueError(
            "HttpClient: base_url: expected an absolute URL, such as 'https://api.example', "
            "with http or https and a host"
        )
    if isinstance(proxy, str) and not _PROXY.match(proxy):
        raise ValueError(
            "HttpClient: proxy: expected an absolute URL, such as 'http://proxy.example:3128', "
            "with http, https, socks5 or socks5h and a host"
        )
    if proxy is not None and not isinstance(proxy, str):
        import httpx

        if not isinstance(proxy, httpx.URL | httpx.Proxy):
            raise TypeError(f"HttpClient: proxy: expected a URL, not {type(proxy).__name__}")
    if transport is not None and not hasattr(transport, "handle_async_request"):
        raise TypeError(
            "HttpClient: transport: expected an httpx.AsyncBaseTransport, "
            f"not {shown_value(transport)}"
        )


def check_url(field: str, url: object) -> None:
    """See that it is text, or a URL of httpx's."""
    if isinstance(url, str):
        return
    import httpx

    if not isinstance(url, httpx.URL):
        raise TypeError(f"{field}: expected text or an httpx.URL, not {type(url).__name__}")


def check_method(method: object) -> None:
    """See that it is a method (RFC 9110, section 9.1).

    Raises:
        TypeError: it is no text.
        httpx.LocalProtocolError: it is no token.
    """
    if not isinstance(method, str):
        raise TypeError(f"the method: expected text, such as 'GET', not {type(method).__name__}")
    if not _TOKEN.fullmatch(method):
        import httpx

        raise httpx.LocalProtocolError(
            f"the method is no token, such as 'GET', but {shown_value(method)}"
        )


def check_headers(headers: object, charset: str, *, raw: bool = True) -> None:
    """See that they are header fields (RFC 9110, section 5.1).

    Args:
        headers: the fields.
        charset: what their values can hold.
        raw: whether they may be bytes as well.

    Raises:
        TypeError: they have another shape, or other parts than text.
        ValueError: a name is no token, or a value has what none can have.
    """
    for name, value in _pairs(headers):
        label = _decoded("a name", name, raw=raw)
        if not _TOKEN.fullmatch(label):
            # Not repeated: where names are wrong, they may hold the value.
            raise ValueError(f"{_HEADERS}: a name is no token (RFC 9110, section 5.1)")
        content = _decoded(f"the value of {label!r}", value, raw=raw)
        if _CONTROL.search(content):
            raise ValueError(f"{_HEADERS}: the value of {label!r} has a control character")
        try:
            content.encode("latin-1" if isinstance(value, bytes) else charset)
        except UnicodeEncodeError:
            raise ValueError(
                f"{_HEADERS}: the value of {label!r} has a character that is not {charset}; "
                "encode it before"
            ) from None


def _pairs(headers: object) -> Iterable[tuple[object, object]]:
    if isinstance(headers, Mapping):
        return headers.items()
    expected = "expected a mapping, or pairs of names and values"
    if isinstance(headers, str | bytes) or not isinstance(headers, Iterable):
        raise TypeError(f"{_HEADERS}: {expected}, not {type(headers).__name__}")
    pairs: list[tuple[object, object]] = []
    for pair in headers:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{_HEADERS}: {expected}; one of them is no pair")
        pairs.append((pair[0], pair[1]))
    return pairs


def _decoded(which: str, part: object, *, raw: bool) -> str:
    if raw and isinstance(part, bytes):
        return part.decode("latin-1")
    if not isinstance(part, str):
        raise TypeError(f"{_HEADERS}: {which}: expected text, not {type(part).__name__}")
    return part


def refuse_headers(
    headers: object, charset: str, error: Exception, *, raw: bool = True
) -> NoReturn:
    """Raise what is wrong with a request's fields, of which nothing could be made.

    Args:
        headers: the fields.
        charset: what their values can hold.
        error: what was raised; it stays if it has another cause.
        raw: whether they may be bytes as well.

    Raises:
        TypeError: they have another shape.
        httpx.LocalProtocolError: one cannot be sent.
    """
    import httpx

    try:
        check_headers(headers, charset, raw=raw)
    except ValueError as why:
        raise httpx.LocalProtocolError(str(why)) from None
    raise error
