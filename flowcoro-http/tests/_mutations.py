"""Requests, and what may be done to them: for tests that look for readers that disagree."""

from __future__ import annotations

import random

__all__ = ["mutated"]

_GET = b"GET /a/b?c=d HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"
_REQUESTS = (
    _GET,
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD /h HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"PUT /u HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n",
    b"DELETE /%41%zz HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=b; c=d\r\nCookie: e=f\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
)
_LINES = (
    b"Host: a",
    b"Host: b",
    b"Host:",
    b"Content-Length: 5",
    b"Content-Length: 05",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length:",
    b"Content-Length: 0",
    b"Content-Length: 18446744073709551616",
    b"Content-Length : 5",
    b"Content_Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"TRANSFER-ENCODING: CHUNKED",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: close, keep-alive",
    b"Connection: Transfer-Encoding",
    b"Connection: upgrade",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b" folded",
    b"\tfolded",
    b"X: \xc3\xa9",
    b"X:y",
    b"X",
    b": y",
    b"",
)
_BYTES = (
    *(bytes([each]) for each in b"\r\n\0\t\x0b\x0c\x1f\x7f\x80\xff :;,\"'()=+-0159afAFxX/?#*%@[]"),
    b"\r\n",
    b"\n\n",
    b"\r\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"http/1.1",
    b"CONNECT",
    b"TRACE",
    b"0x5",
    b"ffffffffffffffff",
    b"100000000000000005",
    b"00000005",
)


def _edit(chosen: random.Random, text: bytes) -> bytes:
    at = chosen.randrange(len(text) + 1)
    until = min(len(text), at + chosen.choice((0, 1, 1, 1, 2, 5)))
    return text[:at] + chosen.choice((b"", *_BYTES)) + text[until:]


def _edit_line(chosen: random.Random, text: bytes) -> bytes:
    lines = text.split(b"\r\n")
    at = chosen.randrange(len(lines))
    what = chosen.randrange(6)
    if what == 0:
        lines.insert(max(at, 1), chosen.choice(_LINES))
    elif what == 1:
        lines[at] = chosen.choice(_LINES)
    elif what == 2:
        lines.insert(at, lines[at])
    elif what == 3:
        lines.insert(chosen.randrange(len(lines)), lines.pop(at))
    elif what == 4:
        lines[at] = lines[at].swapcase()
    else:
        del lines[at]
    return b"\r\n".join(lines)


def mutated(chosen: random.Random) -> bytes:
    """Return what a connection may bring: requests that something was done to, and one behind."""
    text = b"".join(chosen.choice(_REQUESTS) for _ in range(chosen.choice((1, 1, 1, 2))))
    for _ in range(chosen.choice((1, 1, 2, 3))):
        text = (_edit if chosen.random() < 0.5 else _edit_line)(chosen, text)
    # What is left over of a body, or is none of it, shows as a request.
    return text + (_GET if chosen.random() < 0.9 else b"")
