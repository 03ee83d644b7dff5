"""Three readers of HTTP/1.1 requests, of one shape: the engine, h11 and httptools.

Each takes the bytes of a connection, all at once, and tells what requests it took out of
them, up to where it stopped and why.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import httptools

from flowcoro_http._native import Engine
from flowcoro_http._types import Receive, Scope, Send

__all__ = ["ACCEPTED", "READERS", "REFUSED", "Engineer", "Outcome", "Request", "engineer"]

ACCEPTED, REFUSED = "accepts", "refuses"


@dataclass
class Request:
    """A request, as a reader has told it."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    version: str = "1.1"
    body: bytes = b""
    complete: bool = False

    def has(self, name: bytes, option: bytes) -> bool:
        """Return whether a field that is a list has that option."""
        values = b",".join(value for each, value in self.fields if each == name)
        return option in [each.strip(b" \t").lower() for each in values.split(b",")]


@dataclass
class Outcome:
    """What became of a connection's bytes.

    Attributes:
        requests: those that were taken; the last may lack some of its body.
        end: "more" (it waits for more bytes), "last" (no other request may follow) or
            "refused".
        reason: why it refused.
        trailers: whether fields behind the last body were taken for the request's.
        upgraded: whether it leaves the rest to whoever speaks something else than HTTP.
        status: with which status the engine refused.
        sent: what the engine sent.
    """

    requests: list[Request] = field(default_factory=list)
    end: str = "more"
    reason: str = ""
    upgraded: bool = False
    trailers: bool = False
    status: int = 0
    sent: bytes = b""


def told_target(target: bytes) -> bytes:
    """Return what ASGI tells of a target: no scheme, no authority, no '?' without a query."""
    lower = target.lower()
    for scheme in (b"http://", b"https://"):
        if lower.startswith(scheme):
            rest = target[len(scheme) :]
            begin = min((i for i in map(rest.find, (b"/", b"?")) if i >= 0), default=len(rest))
            target = rest[begin:] if rest[begin:].startswith(b"/") else b"/" + rest[begin:]
    path, mark, query = target.partition(b"?")
    return path + mark + query if query else path


def told_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return fields as all can tell them: h11 folds a coding's case, httptools leaves space."""
    told = []
    for each, value in fields:
        name, rest = each.lower(), value.strip(b" \t")
        told.append((name, rest.lower() if name == b"transfer-encoding" else rest))
    return told


class _Transport(asyncio.Transport):
    """Where the engine's answers go; a closed one gets no more bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended, "something was written behind the end"
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


class Engineer:
    """The engine, over a transport in memory, with an application that records."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests: list[Request] = []
        scope = {"type": "http", "server": None, "client": None}
        hooks = {"asgi": self._record, "receive_later": self._receive_later, "scope": scope}
        self._engine = Engine(loop, hooks | {"failed": self._fail})

    def close(self) -> None:
        """End what stands by."""
        self._engine.end()
        self._settle()
        assert self._engine.held == self._engine.in_flight == self._engine.connections == 0

    def read(self, content: bytes, cuts: tuple[int, ...] = ()) -> Outcome:
        """Take a connection's bytes, in pieces that end at `cuts`."""
        self._requests = []
        transport = _Transport()
        protocol = self._engine.make_protocol()
        protocol.connection_made(transport)
        for begin, end in zip((0, *cuts), (*cuts, len(content)), strict=True):
            if not transport.ended and begin != end:
                protocol.data_received(content[begin:end])
                self._settle()
        outcome = Outcome(self._requests, sent=bytes(transport.sent))
        if transport.ended:
            outcome.end = "last"
        protocol.connection_lost(None)
        self._settle()
        _find_refusal(outcome)
        return outcome

    def _settle(self) -> None:
        ready = self._loop._ready  # type: ignore[attr-defined]  # asyncio's own loop
        while ready:
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()

    async def _record(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        target = scope["raw_path"] + query
        request = Request(
            scope["method"].encode(),
            target,
            told_fields(scope["headers"]),
            scope["http_version"],
        )
        self._requests.append(request)
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            request.body += message["body"]
            if not message["more_body"]:
                break
        request.complete = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    @staticmethod
    async def _receive_later(exchange: Any) -> Any:
        while not exchange.readable:
            await exchange.wait_readable()
        return exchange.take_message()

    @staticmethod
    def _fail(message: str, error: BaseException | None) -> None:
        # A body that does not come to its end: its request was left alone.
        assert "before its response was complete" in message or error is None, (message, error)


def _find_refusal(outcome: Outcome) -> None:
    responses = [found.start() for found in re.finditer(rb"HTTP/1\.1 \d{3} ", outcome.sent)]
    last = outcome.sent[responses[-1] :] if responses else b""
    if b"application/problem+json" in last:
        head, _, body = last.partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        outcome.end = REFUSED
        outcome.status = int(head.split()[1])
        outcome.reason = json.loads(body)["detail"]


def read_by_h11(content: bytes) -> Outcome:
    """Read by h11, answering each request, as a server does."""
    outcome = Outcome()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    try:
        connection.receive_data(content)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                fields = told_fields(event.headers.raw_items())
                target = told_target(event.target)
                version = event.http_version.decode()
                outcome.requests.append(Request(event.method, target, fields, version))
            elif isinstance(event, h11.Data):
                outcome.requests[-1].body += event.data
            elif isinstance(event, h11.EndOfMessage):
                outcome.requests[-1].complete = True
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    outcome.end = "last"
                    break
                connection.start_next_cycle()
            elif event is h11.PAUSED:
                outcome.end = "last"
                break
            else:
                break
    except h11.RemoteProtocolError as error:
        outcome.end, outcome.reason = REFUSED, str(error)
    return outcome


class _Callbacks:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.parser: Any = None
        self._new()

    def _new(self) -> None:
        self._url = b""
        self._complete = False
        self._fields: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self._new()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.outcome.trailers = self._complete
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._complete = True
        fields = told_fields(self._fields)  # trailer fields are told alike, later
        parser, target = self.parser, told_target(self._url)
        request = Request(parser.get_method(), target, fields, parser.get_http_version())
        self.outcome.requests.append(request)

    def on_body(self, body: bytes) -> None:
        self.outcome.requests[-1].body += body

    def on_message_complete(self) -> None:
        self.outcome.requests[-1].complete = True
        if not self.parser.should_keep_alive():
            self.outcome.end = "last"


def read_by_httptools(content: bytes) -> Outcome:
    """Read by httptools (llhttp)."""
    outcome = Outcome()
    callbacks = _Callbacks(outcome)
    callbacks.parser = httptools.HttpRequestParser(callbacks)
    try:
        callbacks.parser.feed_data(content)
    except httptools.HttpParserUpgrade:
        outcome.end, outcome.upgraded = "last", True
        outcome.requests[-1].complete = True
    except httptools.HttpParserError as error:
        if outcome.end != "last":  # what follows a last request is nobody's business
            outcome.end, outcome.reason = REFUSED, str(error)
    return outcome


Reader = Callable[[bytes], Outcome]

READERS: dict[str, Reader] = {"h11": read_by_h11, "httptools": read_by_httptools}
"""The others, by name."""


@contextmanager
def engineer() -> Iterator[Engineer]:
    """Have the engine read, on a loop of its own."""
    loop = asyncio.SelectorEventLoop()
    made = Engineer(loop)
    try:
        yield made
        made.close()
    finally:
        loop.close()
