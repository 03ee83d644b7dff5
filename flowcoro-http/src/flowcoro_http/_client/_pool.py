"""`Pool`: which request gets which connection, and when.

Protocol. A pool belongs to one event loop, and its state changes only between two awaits, so no
lock is needed. At every await:

- A place is taken by each connection in `_members`: those being opened, at rest, in use and handed
  over. There are never more than `max_connections`, nor more of an origin than its own limit. The
  native part tells once that one is of no more use (`_gone`), and that frees its place; nothing
  else does.
- A connection at rest is in its origin's `idle`, and only there. `take` and `_obtain` take it out;
  the native part tells when its response is complete (`_released`), and only then it is put back.
  Who gives up in the middle of a response aborts the connection.
- A request that cannot be served at once is a `_Waiter` of its origin, oldest first, and nobody
  gets past those who wait for the same origin. Whatever becomes free is offered to the oldest of
  all origins that can use it (`_serve`): a connection at rest to the same origin, or a place, for
  which a connection at rest to another origin may be closed. So nobody waits who could be served,
  and a place that `_obtain` makes by closing a connection is nobody else's.
- What was handed to a waiter is its own from then on. A waiter that is cancelled before it has run
  gives it back without an await (`_return`).

Two timers: one rings when the first of all responses is late (`watch`), one sweeps connections
that have rested too long.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import ssl
from collections import deque
from dataclasses import dataclass

import httpx

from flowcoro.net import dial
from flowcoro_http._native import ClientConnection, ClientEngine, Fetched

__all__ = ["Origin", "Pool", "PoolOptions", "PoolState", "make_tls"]

_CLOSE_GRACE = 1.0
"""Seconds that connections have to close, TLS with a word, before they are aborted."""

_Key = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a pool is made with.

    Attributes:
        max_connections: the most at once; None: any number.
        max_per_origin: the most at once to one scheme, host and port; None: any number.
        max_idle: the most that rest, in all.
        keepalive_expiry: the longest that one rests, in seconds; None: for ever.
        tls: for `https`.
        uds: the path of a Unix socket to connect to, whatever the host.
        local_address: an address to connect from.
        max_head_bytes: the longest status line and header fields.
        max_headers: the most header fields.
        max_body_bytes: the longest body of a fetch.
    """

    max_connections: int | None = 100
    max_per_origin: int | None = None
    max_idle: int | None = None
    keepalive_expiry: float | None = 30.0
    tls: ssl.SSLContext | None = None
    uds: str | None = None
    local_address: str | None = None
    max_head_bytes: int = 64 * 1024
    max_headers: int = 100
    max_body_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PoolState:
    """How many connections there are, and who waits.

    Attributes:
        connections: places that are taken: by connections being opened, at rest and in use.
        idle: those at rest.
        waiting: requests that wait for a place.
    """

    connections: int
    idle: int
    waiting: int


class Origin:
    """Where connections go: a scheme, a host and a port (RFC 9110, section 4.3.1)."""

    __slots__ = ("host", "idle", "key", "port", "server_name", "size", "tls", "waiting")

    def __init__(self, key: _Key) -> None:
        scheme, self.host, self.port, self.server_name = key
        self.key = key
        self.tls = scheme == "https"
        self.size = 0
        # Last in, first out: a pool with little to do lets the others go.
        self.idle: dict[ClientConnection, None] = {}
        self.waiting: deque[_Waiter] = deque()

    def first(self) -> _Waiter | None:
        """Return the oldest that still waits."""
        while self.waiting and self.waiting[0].future.done():
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None


class _Waiter:
    __slots__ = ("fresh", "future", "number")

    def __init__(
        self, future: asyncio.Future[ClientConnection], number: int, *, fresh: bool
    ) -> None:
        self.future = future
        self.number = number
        self.fresh = fresh


class Pool:
    """The connections of a client, on the loop that runs when it is made.

    Args:
        options: its limits.
        response_type: what `ClientConnection.fetch` makes.
    """

    def __init__(self, options: PoolOptions, response_type: type[Fetched] = Fetched) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._engine = ClientEngine(
            self._loop, response_type, self._released, self._gone, self._lost
        )
        self._engine.set_limit("max_head", options.max_head_bytes)
        self._engine.set_limit("max_headers", options.max_headers)
        self._engine.set_limit(
            "max_body", -1 if options.max_body_bytes is None else options.max_body_bytes
        )
        self._max_size = math.inf if options.max_connections is None else options.max_connections
        self._max_per_origin = (
            math.inf if options.max_per_origin is None else options.max_per_origin
        )
        self._max_idle = math.inf if options.max_idle is None else options.max_idle
        self._origins: dict[_Key, Origin] = {}
        self._members: set[ClientConnection] = set()
        self._open: set[ClientConnection] = set()
        self._idle = 0
        self._hungry: dict[Origin, None] = {}
        self._numbers = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        self._serving = False
        self._closed = False
        self._tls = options.tls
        self.due = math.inf

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it belongs to."""
        return self._loop

    def state(self) -> PoolState:
        """Tell how many there are."""
        waiting = sum(
            not waiter.future.done() for origin in self._hungry for waiter in origin.waiting
        )
        return PoolState(len(self._members), self._idle, waiting)

    def origin(self, scheme: str, host: str, port: int, server_name: str = "") -> Origin:
        """Return an origin, the same one for as long as it has connections or is waited for."""
        key = (scheme, host, port, server_name)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = Origin(key)
        return origin

    def take(self, origin: Origin) -> ClientConnection | None:
        """Return a connection that rests; None when there is none."""
        if origin.idle:
            self._idle -= 1
            return origin.idle.popitem()[0]
        return None

    async def acquire(
        self,
        origin: Origin,
        *,
        pool_timeout: float | None = None,
        connect_timeout: float | None = None,
        fresh: bool = False,
    ) -> ClientConnection:
        """Return a connection that can have a request, waiting for a place or opening one.

        Args:
            origin: where it goes.
            pool_timeout: seconds to wait for a place.
            connect_timeout: seconds to connect, the TLS handshake included.
            fresh: whether it must be one that had no request yet.

        Raises:
            httpx.PoolTimeout: no place became free.
            httpx.ConnectTimeout: it took longer than `connect_timeout`.
            httpx.ConnectError: the server cannot be reached, or is not who it should be.
            httpx.ReadError: the pool is closed.
        """
        while True:
            if self._closed:
                raise httpx.ReadError("the client was closed")
            origin = self._origins.setdefault(origin.key, origin)
            connection = self._obtain(origin, fresh=fresh) if origin.first() is None else None
            if connection is None:
                connection = await self._wait(origin, pool_timeout, fresh=fresh)
            if connection.usable:
                return connection
            if connection in self._members:
                return await self._connect(connection, origin, connect_timeout)
            # It was handed over, and ended before we came to run.

    def watch(self, deadline: float) -> None:
        """See to it that the response of a connection with that deadline is not waited for longer.

        Args:
            deadline: as the connection has it, by the loop's clock.
        """
        if deadline < self.due:
            if self._alarm is not None:
                self._alarm.cancel()
            self.due = deadline
            self._alarm = self._loop.call_at(deadline, self._ring)

    async def aclose(self) -> None:
        """Close all connections, those in use as well, whose requests fail."""
        self._closed = True
        for timer in (self._alarm, self._sweeper):
            if timer is not None:
                timer.cancel()
        for origin in self._hungry:
            for waiter in origin.waiting:
                if not waiter.future.done():
                    waiter.future.set_exception(httpx.ReadError("the client was closed"))
        for connection in [one for origin in self._origins.values() for one in origin.idle]:
            connection.close()
        for connection in list(self._members):
            connection.abort()
        try:
            async with asyncio.timeout(_CLOSE_GRACE):
                await self._all_lost()
        except TimeoutError:
            pass
        finally:
            for connection in list(self._open):
                if connection.transport is not None:
                    connection.transport.abort()
        await self._all_lost()

    async def _all_lost(self) -> None:
        while self._open:
            self._emptied.clear()
            await self._emptied.wait()

    # Who gets what.

    def _obtain(self, origin: Origin, *, fresh: bool) -> ClientConnection | None:
        """Return a connection at rest, or a place for one that is not open yet; None: neither."""
        if not fresh and (found := self.take(origin)) is not None:
            return found
        if origin.size >= self._max_per_origin:
            if not (fresh and origin.idle):
                return None
            _oldest(origin).close()
        if len(self._members) >= self._max_size and not self._evict():
            return None
        connection = self._engine.make_connection(origin)
        self._members.add(connection)
        origin.size += 1
        return connection

    def _evict(self) -> bool:
        """Close a connection at rest, of whichever origin. Return whether there was one."""
        origin = next((each for each in self._origins.values() if each.idle), None)
        if origin is not None:
            _oldest(origin).close()
        return origin is not None

    async def _wait(
        self, origin: Origin, pool_timeout: float | None, *, fresh: bool
    ) -> ClientConnection:
        limit = asyncio.timeout(pool_timeout)
        waiter = _Waiter(self._loop.create_future(), next(self._numbers), fresh=fresh)
        origin.waiting.append(waiter)
        self._hungry[origin] = None
        try:
            async with limit:
                return await waiter.future
        except BaseException as error:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._return(future.result())
            else:
                future.cancel()
            if isinstance(error, TimeoutError) and limit.expired():
                raise httpx.PoolTimeout(
                    f"no connection became free within {pool_timeout} s: {self.state()}"
                ) from None
            raise
        finally:
            if origin.first() is None:
                self._hungry.pop(origin, None)
                self._forget_unused(origin)

    def _return(self, connection: ClientConnection) -> None:
        if connection.usable:
            self._released(connection)
        else:
            connection.abort()  # a place: nothing was opened

    def _serve(self) -> None:
        """Hand over what is free, as long as somebody can use it."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._serve_one():
                pass
        finally:
            self._serving = False

    def _serve_one(self) -> bool:
        waiting = [(first, each) for each in self._hungry if (first := each.first())]
        for waiter, origin in sorted(waiting, key=lambda pair: pair[0].number):
            connection = self._obtain(origin, fresh=waiter.fresh)
            if connection is not None:
                origin.waiting.popleft()
                waiter.future.set_result(connection)
                return True
        return False

    def _forget_unused(self, origin: Origin) -> None:
        if origin.size == 0 and origin.first() is None:
            self._origins.pop(origin.key, None)

    # From the native part.

    def _released(self, connection: ClientConnection) -> None:
        """Take back a connection whose response is complete."""
        origin: Origin = connection.origin
        if self._idle >= self._max_idle and origin.first() is None:
            connection.close()
            return
        origin.idle[connection] = None
        self._idle += 1
        if self._hungry:
            self._serve()
        if self._sweeper is None:
            self._start_sweeper()

    def _gone(self, connection: ClientConnection) -> None:
        """Free the place of a connection that is of no more use."""
        if connection not in self._members:
            return
        self._members.remove(connection)
        origin: Origin = connection.origin
        origin.size -= 1
        if connection in origin.idle:
            del origin.idle[connection]
            self._idle -= 1
        if self._hungry:
            self._serve()
        self._forget_unused(origin)

    def _lost(self, connection: ClientConnection) -> None:
        """Forget a connection whose descriptor is closed."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    # Connecting.

    async def _connect(
        self, connection: ClientConnection, origin: Origin, timeout: float | None
    ) -> ClientConnection:
        try:
            limit = asyncio.timeout(timeout)
        except BaseException:
            connection.abort()  # httpx lets anything pass for a number of seconds
            raise
        try:
            async with limit:
                await self._open_transport(connection, origin)
        except BaseException as error:
            self._note_open(connection)
            connection.abort()
            if isinstance(error, TimeoutError) and limit.expired():
                raise httpx.ConnectTimeout(
                    f"{origin.host} port {origin.port} was not connected within {timeout} s"
                ) from error
            if isinstance(error, OSError | ssl.CertificateError | UnicodeError | ValueError):
                raise httpx.ConnectError(
                    str(error) or f"{type(error).__name__} while connecting"
                ) from error
            raise
        self._note_open(connection)
        if not connection.usable:
            raise httpx.ConnectError(
                "the client was closed"
                if self._closed
                else f"{origin.host} port {origin.port} ended the connection at once"
            )
        return connection

    def _note_open(self, connection: ClientConnection) -> None:
        """Wait for its end when the pool is closed, if that has not come yet."""
        if connection.transport is not None:
            self._open.add(connection)

    async def _open_transport(self, connection: ClientConnection, origin: Origin) -> None:
        if origin.tls and self._tls is None:
            self._tls = make_tls(httpx.create_ssl_context())
        context = self._tls if origin.tls else None
        name = (origin.server_name or origin.host) if origin.tls else None
        uds = self._options.uds
        if uds is not None:
            await self._loop.create_unix_connection(
                lambda: connection, uds, ssl=context, server_hostname=name
            )
            return
        address = self._options.local_address
        sock = await dial(
            origin.host, origin.port, local_address=None if address is None else (address, 0)
        )
        await self._loop.create_connection(
            lambda: connection, sock=sock, ssl=context, server_hostname=name
        )

    # Timers.

    def _ring(self) -> None:
        now = self._loop.time()
        self._alarm, self.due = None, math.inf
        due = min((each.expire(now) for each in list(self._members)), default=math.inf)
        if due < math.inf:
            self.watch(due)

    def _start_sweeper(self) -> None:
        expiry = self._options.keepalive_expiry
        if expiry is not None and self._idle and not self._closed:
            self._sweeper = self._loop.call_later(expiry / 2, self._sweep)

    def _sweep(self) -> None:
        """Close what has rested through two sweeps: half of the expiry at least, all at most."""
        self._sweeper = None
        resting = [one for origin in self._origins.values() for one in origin.idle]
        for connection in resting:
            if connection.mark() >= 2:
                connection.close()
        self._start_sweeper()


def _oldest(origin: Origin) -> ClientConnection:
    """Return the connection that has rested longest."""
    return next(iter(origin.idle))


def make_tls(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have a context offer what is spoken here."""
    context.set_alpn_protocols(["http/1.1"])
    return context
