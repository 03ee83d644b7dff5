from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _serving import bare_request
from flowcoro_http import Request, TrustedProxies, WebSocket

PROXY = "10.0.0.1"


def seen(
    middleware: TrustedProxies,
    *headers: tuple[str, str],
    peer: Any = (PROXY, 4711),
    scheme: str = "http",
) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    request = bare_request(scheme=scheme, path="/p", headers=raw, client=peer)
    middleware.apply(request)
    return request


OURS = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])
WITH_HOST = TrustedProxies(["10.0.0.0/8"], host=True)
RFC7239 = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"], header="forwarded", host=True)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.7", ("192.0.2.7", 0)),
        ("192.0.2.7:80", ("192.0.2.7", 80)),
        ("2001:dead::7", ("2001:dead::7", 0)),
        ("[2001:dead::7]", ("2001:dead::7", 0)),
        ("[2001:dead::7]:99", ("2001:dead::7", 99)),
        ("::ffff:192.0.2.7", ("192.0.2.7", 0)),
        # From the right: what is left of the first stranger is hearsay.
        ("1.1.1.1, 192.0.2.7", ("192.0.2.7", 0)),
        ("1.1.1.1, 192.0.2.7, 10.9.9.9", ("192.0.2.7", 0)),
        ("10.3.3.3, 192.0.2.7, 10.9.9.9, 2001:db8::1", ("192.0.2.7", 0)),
        ("10.1.1.1, 10.2.2.2", ("10.1.1.1", 0)),
        ("192.0.2.7, , ,", ("192.0.2.7", 0)),
        # Whom nobody knows is nobody; what our own proxies say of each other stays.
        ("unknown", (PROXY, 4711)),
        ("192.0.2.7, _hidden", (PROXY, 4711)),
        ("192.0.2.7, unknown, 10.9.9.9", ("10.9.9.9", 0)),
        ("", (PROXY, 4711)),
        ("192.0.2.7'; drop table", (PROXY, 4711)),
        ("192.0.2.7:99999", (PROXY, 4711)),
        ("192.0.2.7:x", (PROXY, 4711)),
        ("[::1", (PROXY, 4711)),
        ("[2001:dead::7]x", (PROXY, 4711)),
        ("999.1.1.1", (PROXY, 4711)),
        ("127.1", (PROXY, 4711)),
        ("1.1.1.1," * 100 + "192.0.2.7", (PROXY, 4711)),
    ],
)
def test_x_forwarded_for(value: str, client: tuple[str, int]) -> None:
    assert seen(OURS, ("x-forwarded-for", value)).client == client


def test_fields_that_come_several_times_are_one_list() -> None:
    headers = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.7, 10.0.0.9")]
    assert seen(OURS, *headers).client == ("192.0.2.7", 0)


@pytest.mark.parametrize(
    "peer", [("192.0.2.1", 1), ("11.0.0.1", 1), ("::1", 1), ("nonsense", 1), None, ("", 0)]
)
def test_strangers_are_not_believed(peer: Any) -> None:
    headers = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=1.2.3.4;proto=https;host=evil.example"),
        ("host", "own.example"),
    ]
    for middleware in (OURS, WITH_HOST, RFC7239):
        request = seen(middleware, *headers, peer=peer)
        assert request.forwarded is None
        assert (request.client, request.scheme, request.host) == (peer, "http", "own.example")
        assert request.url == "http://own.example/p"


def test_unix_sockets() -> None:
    unix = TrustedProxies(["unix"])
    for peer in (None, ("", 0)):
        request = seen(unix, ("x-forwarded-for", "192.0.2.7"), peer=peer)
        assert request.client == ("192.0.2.7", 0)
        assert request.peer == peer
    assert seen(unix, ("x-forwarded-for", "1.1.1.1"), peer=("10.0.0.1", 1)).client[0] == "10.0.0.1"  # type: ignore[index]


@pytest.mark.parametrize(
    ("addresses", "schemes", "scheme"),
    [
        ("192.0.2.7", "https", "https"),
        ("192.0.2.7", "HTTPS", "https"),
        ("192.0.2.7, 10.9.9.9", "https, http", "https"),
        ("1.1.1.1, 192.0.2.7, 10.9.9.9", "x, http, https", "http"),
        ("192.0.2.7, 10.9.9.9", "https", "https"),  # handed on by the inner proxy
        ("", "https", "https"),
        ("192.0.2.7", "", "http"),
        ("192.0.2.7", "javascript", "http"),
        ("192.0.2.7", "https\t;x", "http"),
    ],
)
def test_schemes(addresses: str, schemes: str, scheme: str) -> None:
    headers = [("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)]
    assert seen(OURS, *headers).scheme == scheme


def test_hosts_are_taken_on_request_only() -> None:
    headers = [
        ("host", "inner"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example:8443"),
    ]
    assert seen(OURS, *headers).url == "https://inner/p"
    assert seen(WITH_HOST, *headers).url == "https://shop.example:8443/p"
    for bad in ("a b", "a/b", "a@b", "http://x", "a\tb", "x" * 300, "a:b:c", "[::1"):
        request = seen(WITH_HOST, headers[0], headers[1], ("x-forwarded-host", bad))
        assert request.host == "inner"
    for good in ("[::1]:80", "a-b.example", "xn--bcher-kva.example"):
        assert seen(WITH_HOST, headers[1], ("x-forwarded-host", good)).host == good


@pytest.mark.parametrize(
    ("value", "client", "scheme", "host"),
    [
        ("for=192.0.2.7", ("192.0.2.7", 0), "http", "inner"),
        ('For="[2001:dead::7]:4711"', ("2001:dead::7", 4711), "http", "inner"),
        (
            "for=192.0.2.7;proto=https;by=10.0.0.1;host=shop.example",
            ("192.0.2.7", 0),
            "https",
            "shop.example",
        ),
        ('for=192.0.2.7 ; proto="htt\\ps"', ("192.0.2.7", 0), "https", "inner"),
        (
            'for=1.1.1.1;host=evil, for=192.0.2.7;host="shop.example", '
            'for="[2001:db8::5]";proto=https',
            ("192.0.2.7", 0),
            "http",
            "shop.example",
        ),
        ("for=1.1.1.1, for=unknown;proto=https", (PROXY, 1), "https", "inner"),
        ('for="1.1.1.1, for=2.2.2.2"', (PROXY, 1), "http", "inner"),
        # Of what cannot be read nothing is believed.
        ("for=192.0.2.7;for=1.1.1.1", (PROXY, 1), "http", "inner"),
        ("for=192.0.2.7;", (PROXY, 1), "http", "inner"),
        ('for="192.0.2.7', (PROXY, 1), "http", "inner"),
        ("for=192.0.2.7 proto=https", (PROXY, 1), "http", "inner"),
        ("nonsense", (PROXY, 1), "http", "inner"),
        ("", (PROXY, 1), "http", "inner"),
        ("for=192.0.2.7," * 60 + "for=1.1.1.1", (PROXY, 1), "http", "inner"),
    ],
)
def test_forwarded(value: str, client: tuple[str, int], scheme: str, host: str) -> None:
    request = seen(RFC7239, ("forwarded", value), ("host", "inner"), peer=(PROXY, 1))
    assert (request.client, request.scheme, request.host) == (client, scheme, host)


def test_only_one_kind_of_fields_counts() -> None:
    headers = [("forwarded", "for=1.1.1.1;proto=https"), ("x-forwarded-for", "2.2.2.2")]
    assert seen(OURS, *headers).client == ("2.2.2.2", 0)
    assert seen(RFC7239, *headers).client == ("1.1.1.1", 0)
    assert seen(OURS, headers[0]).scheme == "http"


addresses = st.sampled_from(["10.0.0.5", "10.1.2.3", "192.0.2.7", "203.0.113.9", "unknown", "x y"])


@given(st.text(max_size=50), st.lists(addresses, min_size=1, max_size=6))
def test_no_prefix_changes_what_is_believed(forged: str, hops: list[str]) -> None:
    """Whatever a client sends itself stands at the left."""
    if all(hop.startswith("10.") for hop in hops):
        hops = ["192.0.2.99", *hops]
    honest = ", ".join(hops)
    for middleware, name, text in [
        (OURS, "x-forwarded-for", honest),
        (RFC7239, "forwarded", ", ".join(f'for="{hop}"' for hop in hops)),
    ]:
        expected = seen(middleware, (name, text)).client
        forged_text = forged.encode("latin-1", "replace").decode("latin-1")
        got = seen(middleware, (name, forged_text), (name, text)).client
        # Of `Forwarded` that cannot be read nothing is believed; never is a forgery.
        assert got == expected or (middleware is RFC7239 and got == (PROXY, 4711))


def test_websockets_are_told_apart() -> None:
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": "/",
        "client": (PROXY, 1),
        "headers": [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")],
    }
    socket = WebSocket(scope, None, None)  # type: ignore[arg-type]
    OURS.apply(socket)
    assert (socket.client, socket.scheme) == (("192.0.2.7", 0), "wss")
    socket.discard()


def test_mistakes_are_found_early() -> None:
    for network in ("10.0.0.1/8", "everyone", "10.0.0.0/40", ""):
        with pytest.raises(ValueError, match=r"network|host bits"):
            TrustedProxies([network])
    with pytest.raises(TypeError, match="expected several"):
        TrustedProxies("10.0.0.0/8")
    with pytest.raises(ValueError, match="expected 'x-forwarded' or"):
        TrustedProxies([], header="both")  # type: ignore[arg-type]
