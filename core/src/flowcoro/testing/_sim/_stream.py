"""Streams: the two ends of a connection, and what is on its way to each.

What belongs here: asyncio's stream transport without a socket. An end keeps what is on its way to
it (`_arrivals`), in the order in which it was sent; it is its own handle, which the loop runs when
the next of that is due. What a window does not take stays in the sender's write buffer.

As Linux does it: bytes that reach an end which is closed are answered with a reset; so are bytes
that were there, unread, when it was closed. What waits at a blocked link comes after it heals.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import heapq
from asyncio import constants, protocols, transports
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from flowcoro.testing._sim._conditions import Link
from flowcoro.testing._sim._names import os_error
from flowcoro.testing._sim._trace import SHOWN_BYTES, brief

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop
    from flowcoro.testing._sim._server import Acceptor

__all__ = ["ACCEPT", "StreamTransport"]


class _Sign:
    """What can be on its way besides bytes."""

    def __init__(self, name: str) -> None:
        self.name = name


ACCEPT, _END, _RESET = _Sign("accept"), _Sign("end"), _Sign("reset")


def _reset_error() -> OSError:
    return os_error(errno.ECONNRESET)


class StreamTransport(transports._FlowControlMixin, asyncio.Transport):
    """One end of a connection.

    Attributes:
        host: on which host it is.
        peer_host: on which host the other end is.
    """

    # Both as a mode of `loop.sendfile`, which reads the file and writes here.
    _sendfile_compatible = constants._SendfileMode.FALLBACK
    _cancelled = False

    if TYPE_CHECKING:  # asyncio's own, which its types leave out

        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

    def __init__(
        self,
        loop: SimulatedLoop,
        out: Link,
        back: Link,
        context: contextvars.Context,
        extra: dict[str, Any],
    ) -> None:
        super().__init__(extra, loop)
        self._loop: SimulatedLoop = loop
        self.host, self.peer_host = out.source, out.target
        self._peer: StreamTransport
        self._out, self._in = out, back
        self._context = context
        self._protocol: Any = None
        self._buffered = False
        self._listener: Acceptor | None = None
        self._sim_lane = loop._next_lane()
        self._sim_hash = loop._next_hash()
        loop.trace.names[self._sim_lane] = f"stream {self.host}-{self.peer_host}"
        self._draw = loop.network._dice.random
        self._window = loop.network.window
        self._arrivals: deque[tuple[float, bytes | _Sign]] = deque()
        self._unread = 0
        self._last = 0.0
        self._scheduled = False
        self._holding: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._closing = self._lost = self._eof = self._ended = False
        self._paused = True  # until it has a protocol
        self._resets = False
        self._error: BaseException | None = None
        self._writes_lost = 0

    # What asyncio's transports have.

    @property
    def peer(self) -> StreamTransport:
        """The other end."""
        return self._peer

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol from now on."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return cast("asyncio.BaseProtocol", self._protocol)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether what comes is handed on."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Hand nothing on; what comes fills the window."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        """Hand on what has come."""
        if self._closing or not self._paused:
            return
        self._paused = False
        if self._arrivals and not self._scheduled:
            self._wake_at(max(self._loop._now, self._arrivals[0][0]))

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the window has not taken yet."""
        return len(self._buffer)

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, after those that were written before."""
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(
                    "data argument must be a bytes-like object, not " + repr(type(data).__name__)
                )
            data = bytes(data)
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._lost:
            self._writes_lost += 1
            return
        peer = self._peer
        unread = peer._unread + len(data)
        if not self._buffer and unread <= self._window:
            link, draw = self._out, self._draw
            if link.rough or (link.cut and draw() < link.cut):
                self._transmit(peer, data)
                return
            # What follows is `_transmit` and `_expect` for the most frequent case.
            peer._unread = unread
            loop = self._loop
            when = loop._now + link.low + link.span * draw()
            if when < peer._last:
                when = peer._last
            else:
                peer._last = when
            peer._arrivals.append((when, data))
            if not peer._scheduled:
                peer._scheduled = True
                loop._sequence += 1
                heapq.heappush(loop._timers, (when, loop._sequence, peer))
            return
        if self._window < 0:
            self._fail(_reset_error())
            return
        self._buffer += data
        self._push()
        if self._buffer:
            self._maybe_pause_protocol()

    def writelines(self, list_of_data: Any) -> None:
        """Send several pieces as one."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Tell the peer, after what was written, that no more comes."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._buffer:
            self._end()

    def close(self) -> None:
        """Close when what was written is on its way; what comes meanwhile is not handed on."""
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._shut(None)

    def abort(self) -> None:
        """Close at once; what the window has not taken is lost."""
        if not self._lost:
            self._closing = True
            self._buffer.clear()
            self._shut(None)

    # Sending.

    def _transmit(self, peer: StreamTransport, data: bytes) -> None:
        """Put bytes on their way, in pieces maybe."""
        link = self._out
        size = len(data)
        if link.happens(link.conditions.reset):
            self._loop.trace.add("reset", self.host, self.peer_host)
            self._fail(_reset_error())
            peer._fail(_reset_error())
            return
        peer._unread += size
        begin = 0
        for end in link.pieces(size):
            peer._expect(link.arrival(self._loop._now, end - begin), data[begin:end])
            begin = end

    def _expect(self, when: float, what: bytes | _Sign) -> None:
        """Note what comes, not before what was sent before it."""
        if when < self._last:
            when = self._last
        else:
            self._last = when
        self._arrivals.append((when, what))
        if not self._scheduled:
            self._scheduled = True
            loop = self._loop
            loop._sequence += 1
            heapq.heappush(loop._timers, (when, loop._sequence, self))

    def _wake_at(self, when: float) -> None:
        self._scheduled = True
        self._loop._wake_at(when, self)

    def _send(self, sign: _Sign) -> None:
        self._peer._expect(self._out.arrival(self._loop._now, 0), sign)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._send(_END)

    def _push(self) -> None:
        """Put on its way what the window has room for."""
        if self._lost:
            return
        peer, buffer = self._peer, self._buffer
        if buffer:
            room = self._window - peer._unread
            if room > 0:
                data = bytes(buffer[:room])
                del buffer[:room]
                self._transmit(peer, data)
        self._maybe_resume_protocol()
        if not self._buffer and not self._lost:
            if self._closing:
                self._shut(None)
            elif self._eof:
                self._end()

    # Receiving. The loop calls `_run` as it does that of a handle.

    def _run(self) -> None:
        self._scheduled = False
        arrivals = self._arrivals
        if not arrivals:
            return
        if self._in.blocked:
            self._hold()
            return
        now = self._loop._now
        what = arrivals[0][1]
        if (self._paused or self._closing) and not self._lost and what is not ACCEPT:
            self._leave_unread(now)
            return
        if arrivals[0][0] > now:
            self._wake_at(arrivals[0][0])
            return
        arrivals.popleft()
        if type(what) is bytes:
            if arrivals:
                if arrivals[0][0] <= now and type(arrivals[0][1]) is bytes:
                    what = self._joined(what, now)
                if arrivals:
                    self._wake_at(max(now, arrivals[0][0]))
            self._unread -= len(what)
            if self._peer._buffer:
                self._make_room()
            if self._lost:
                self._send(_RESET)
            else:
                self._receive(what)
            return
        if arrivals:
            self._wake_at(max(now, arrivals[0][0]))
        self._take_sign(cast("_Sign", what))

    def _leave_unread(self, now: float) -> None:
        """Nobody reads; but who has something to write, or will have, learns of a reset."""
        if any(when <= now and what is _RESET for when, what in self._arrivals):
            if self._buffer:
                self._fail(_reset_error())
            else:
                self._window = -1  # the next write will not get past it

    def _joined(self, first: bytes, now: float) -> bytes:
        parts = [first]
        arrivals = self._arrivals
        while arrivals and arrivals[0][0] <= now and isinstance(arrivals[0][1], bytes):
            parts.append(cast("bytes", arrivals.popleft()[1]))
        return b"".join(parts)

    def _receive(self, data: bytes) -> None:
        self._loop.trace.events.append(
            data if len(data) <= SHOWN_BYTES else ("received", *brief(data))
        )
        try:
            if self._buffered:
                feed = protocols._feed_data_to_buffered_proto  # type: ignore[attr-defined]
                self._context.run(feed, self._protocol, data)
            else:
                self._context.run(self._protocol.data_received, data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does
            self._complain(error, "Fatal error: protocol.data_received() call failed.")

    def _make_room(self) -> None:
        """Tell the sender, whose buffer waits for that, that some was taken."""
        peer, loop = self._peer, self._loop
        loop.call_at(loop._now + self._out.delay(), peer._push, context=peer._context)

    def _take_sign(self, sign: _Sign) -> None:
        self._loop.trace.add(sign.name, self._sim_lane)
        if sign is ACCEPT:
            self._accept()
        elif sign is _RESET:
            self._fail(_reset_error())
        elif not self._lost:
            try:
                keep_open = self._context.run(self._protocol.eof_received)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio does
                self._complain(error, "Fatal error: protocol.eof_received() call failed.")
                return
            if not keep_open:
                self.close()

    def _hold(self) -> None:
        self._in.held[self] = None
        if self._holding is None and not self._peer._lost:
            network = self._loop.network
            self._holding = self._loop.call_later(network.give_up, self._give_up)

    def _give_up(self) -> None:
        self._peer._fail(os_error(errno.ETIMEDOUT))

    def _released(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        if self._arrivals and not self._scheduled:
            self._wake_at(self._loop._now + self._in.delay())

    # Beginning and end.

    def _begin(self, waiter: asyncio.Future[None] | None) -> None:
        """Call `connection_made`; then tell who waits for that."""
        self._loop.network._streams[self] = None
        self.resume_reading()
        self._protocol.connection_made(self)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _attach(self, protocol: Any) -> None:
        """Have a protocol only now: what has come meanwhile is for it."""
        self._context = contextvars.copy_context()
        self.set_protocol(protocol)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._loop.call_soon(self._begin, waiter, context=self._context)
        if self._lost:
            self._loop.call_soon(self._call_connection_lost, self._error, context=self._context)
        try:
            await waiter
        except BaseException:
            self.close()
            raise

    def _accept(self) -> None:
        listener = self._listener
        assert listener is not None
        loop = self._loop
        if loop.network._listeners.get((listener.host, listener.key)) is not listener:
            self._closing = self._lost = True  # it was closed before it accepted
            self._send(_RESET)
            return
        try:
            listener.take(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does
            self._complain(error, "Error on transport creation for incoming connection")

    def _complain(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._buffer.clear()
        if not self._lost:
            self._closing = True
            self._shut(error)

    def _shut(self, error: BaseException | None) -> None:
        """Close the socket, as it were, and tell both sides."""
        now = self._loop._now
        unread = any(when <= now and isinstance(what, bytes) for when, what in self._arrivals)
        if unread or self._resets:
            self._peer._lose_unsent(now)
            self._send(_RESET)
        else:
            self._end()
        self._go(error)

    def _lose_unsent(self, now: float) -> None:
        """Lose what the other side had not sent yet when it reset: the seed says how much."""
        under_way = [item for item in self._arrivals if item[0] > now and item[1] is not ACCEPT]
        for _ in range(int(self._draw() * (len(under_way) + 1))):
            what = self._arrivals.pop()[1]
            if isinstance(what, bytes):
                self._unread -= len(what)

    def _fail(self, error: BaseException) -> None:
        """Be lost, as by a reset; the other end is not told."""
        if not self._lost:
            self._closing = True
            self._buffer.clear()
            self._go(error)

    def _forget(self) -> None:
        self._fail(os_error(errno.ECONNABORTED))

    def _go(self, error: BaseException | None) -> None:
        self._lost = True
        self._error = error
        self._paused = False
        if self._arrivals and not self._scheduled:
            self._wake_at(max(self._loop._now, self._arrivals[0][0]))
        self._loop.call_soon(self._call_connection_lost, error, context=self._context)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(error)
        finally:
            self._loop.network._streams.pop(self, None)
            if self._listener is not None:
                self._listener.gone(self)

    def __hash__(self) -> int:
        return self._sim_hash

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<simulated stream {self.host}-{self.peer_host} {state}>"
