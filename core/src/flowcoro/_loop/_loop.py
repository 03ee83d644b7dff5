"""Loop: asyncio's event loop over the native reactor."""

from __future__ import annotations

import asyncio
import selectors
import signal
import sys
import threading
from asyncio import events, format_helpers, sslproto
from asyncio.base_events import _check_ssl_socket  # type: ignore[attr-defined]
from asyncio.log import logger
from collections.abc import Callable, Mapping, MutableMapping
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, NoReturn

from flowcoro import _native
from flowcoro._loop._datagrams import DatagramTransport
from flowcoro._loop._files import WatchesFiles
from flowcoro._loop._handles import describe_callback
from flowcoro._loop._stalls import check_threshold, watch
from flowcoro._loop._stats import LoopStats
from flowcoro._loop._transports import (
    FlowControlled,
    SocketTransport,
    Transports,
    accept_connections,
    can_accept,
    open_transport,
    pause_accepting,
)

if TYPE_CHECKING:
    import socket
    import ssl

    from flowcoro._loop._stalls import StallHandler

__all__ = ["Loop"]


_Base = WatchesFiles


class _NoSelector(selectors.BaseSelector):
    """Stands where asyncio's loop has its selector, which it only closes."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> NoReturn:
        raise RuntimeError("flowcoro.Loop polls by its reactor")

    def unregister(self, fileobj: Any) -> NoReturn:
        raise RuntimeError("flowcoro.Loop polls by its reactor")

    def select(self, timeout: float | None = None) -> NoReturn:
        raise RuntimeError("flowcoro.Loop polls by its reactor")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def close(self) -> None:
        pass


class Loop(_native.LoopCore, _Base):
    """An asyncio event loop whose waiting is done by the native reactor.

    Everything that is written for asyncio runs on it.

    Args:
        reactor: Name of the backend (`io_uring`, `epoll`, `kqueue`, `iocp`). Not given: the one
            that the environment's `FLOWCORO_REACTOR` names, or the best that can be had here.
        stall_threshold: see the property.

    Raises:
        ValueError: There is no such backend on this platform, or the threshold is wrong.
        TypeError: One of them is nothing that could be meant.
        OSError: The kernel refuses it.
    """

    _closed = True  # until it is open: a loop that could not be made is no unclosed one

    if TYPE_CHECKING:  # of asyncio's loop, which keeps them to itself
        _debug: bool
        _thread_id: int | None
        _csock: socket.socket
        _signal_handlers: dict[int, Any]
        _check_closed: Callable[[], None]
        _check_running: Callable[[], None]
        _check_thread: Callable[[], None]
        _check_callback: Callable[[Any, str], None]
        _transports: MutableMapping[int, Any]
        _ensure_resolved: Callable[..., Any]
        _set_coroutine_origin_tracking: Callable[[bool], None]
        _asyncgen_firstiter_hook: Callable[[Any], None]
        _asyncgen_finalizer_hook: Callable[[Any], None]

    _stall_threshold: float | None = None
    _stall_handler: StallHandler | None = None

    def __init__(self, reactor: str | None = None, *, stall_threshold: float | None = None) -> None:
        check_threshold(stall_threshold)
        if reactor is not None and not isinstance(reactor, str):
            raise TypeError(f"a reactor is told by its name, not {reactor!r}")
        self._open(reactor)
        super().__init__(_NoSelector())
        self._transports = Transports(self._transport_at)
        if stall_threshold is not None:
            self.stall_threshold = stall_threshold

    @property
    def stall_threshold(self) -> float | None:
        """How long a callback may block the loop, in seconds, before it is told who does.

        None, which is the default: any time. It may be set at any time, from any thread. What has
        blocked the loop for so long is told while it still does, to the handler
        (`set_stall_handler`) or, without one, to the log, as a warning of `flowcoro.loop`; again
        each time it has lasted twice as long; and when it is over.

        Raises:
            TypeError: It is set to what is no number.
            ValueError: It is set to 0, less, or infinity.
        """
        return self._stall_threshold

    @stall_threshold.setter
    def stall_threshold(self, seconds: float | None) -> None:
        seconds = check_threshold(seconds)
        if not self._closed:
            watch(self, seconds)
        self._stall_threshold = seconds

    def set_stall_handler(self, handler: StallHandler | None) -> None:
        """Have `handler(stall)` called instead of a line in the log.

        It is called by another thread than the loop's, which is blocked. One thread serves all
        loops: a handler that takes long delays what is to be told of the others. What it
        raises is logged.

        Args:
            handler: Gets a `flowcoro.loops.Stall`; None: the log again.
        """
        self._stall_handler = handler

    def stats(self) -> LoopStats:
        """Tell what the loop did, and has before it: cheap, at any time, from any thread."""
        return LoopStats(*self._stats())

    def run_forever(self) -> None:
        """Run until `stop` is called.

        Raises:
            RuntimeError: The loop is closed, or a loop runs in this thread already.
        """
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        wakeup = self._take_wakeup_fd()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            events._set_running_loop(self)
            self._run_until_stopped()
        finally:
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)
            # asyncio keeps it for as long as the loop has handlers of signals.
            if wakeup is not None and not self._signal_handlers:
                signal.set_wakeup_fd(wakeup)

    def _take_wakeup_fd(self) -> int | None:
        """Have signals wake this loop, so that their handlers run though it waits.

        Returns:
            The descriptor that was woken before; None outside of the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            return None
        before = signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        # Somebody else's, such as that of a loop around this one, stays.
        if before not in (-1, self._csock.fileno()):
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        return before

    def stop(self) -> None:
        """Stop running after the turn that is under way."""
        self._stop_core()

    def close(self) -> None:
        """Close the loop, which must not be running; what still waits is dropped.

        Raises:
            RuntimeError: The loop is running.
        """
        super().close()
        if self._stall_threshold is not None:
            watch(self, None)
        self._close_core()

    def set_debug(self, enabled: bool) -> None:
        """Turn asyncio's debug mode on or off."""
        self._set_core_debug(enabled)
        super().set_debug(enabled)

    def _add_callback(self, handle: Any) -> None:
        """Queue one of asyncio's own handles."""
        if not handle._cancelled:
            self.call_soon(handle._run)

    def _add_callback_signalsafe(self, handle: Any) -> None:
        if not handle._cancelled:
            self.call_soon_threadsafe(handle._run)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Nothing: a timer that is cancelled leaves at once."""

    if sys.platform != "win32":

        async def sock_connect(self, sock: socket.socket, address: Any) -> None:
            """Connect a socket; a name in the address is resolved.

            Raises:
                OSError: It cannot be had, or the connection.
            """
            _check_ssl_socket(sock)
            if self._debug and sock.gettimeout() != 0:
                raise ValueError("the socket must be non-blocking")
            if sock.family in (AF_INET, AF_INET6):
                found = await self._ensure_resolved(
                    address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
                )
                address = found[0][4]
            await self._connect_socket(sock, address)

    # Called by asyncio's own methods.

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> Any:
        return open_transport(self, sock, protocol, waiter, extra, server)

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        return DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        waiter: Any = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **options: Any,
    ) -> Any:
        over = sslproto.SSLProtocol(self, protocol, sslcontext, waiter, **options)
        open_transport(self, rawsock, over, None, extra, server)
        return over._app_transport

    def _accept_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *more: Any,
    ) -> None:
        if not can_accept(self, sock, sslcontext):
            super()._accept_connection(  # type: ignore[misc]
                protocol_factory, sock, sslcontext, server, backlog, *more
            )
            return
        try:
            accept_connections(self, sock, protocol_factory, server, backlog)
        except OSError as error:

            def again() -> None:
                if sock.fileno() != -1:  # it may have been closed meanwhile
                    start: Any = self._start_serving  # type: ignore[attr-defined]
                    start(protocol_factory, sock, sslcontext, server, backlog, *more)

            if not pause_accepting(self, sock, error, again):
                raise

    async def _sendfile_fallback(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        if isinstance(transp, SocketTransport):
            transp = FlowControlled(transp)
        sent: int = await super()._sendfile_fallback(  # type: ignore[misc]
            transp, file, offset, count
        )
        return sent

    # Called by the native part.

    def _look_at(self, handle: Any, method: str) -> None:
        """Debug mode: check a call, and note where it came from."""
        if method != "call_soon_threadsafe":
            self._check_thread()
        self._check_callback(handle._callback, method)
        handle._source_traceback = format_helpers.extract_stack(sys._getframe(1))

    def _callback_took(self, handle: Any, seconds: float) -> None:
        """Debug mode: tell of a callback that was slow."""
        if seconds >= self.slow_callback_duration:
            what = handle
            callback = getattr(handle, "_callback", None)
            task = getattr(callback, "__self__", None)
            if isinstance(task, asyncio.Task):
                what = task
            logger.warning("Executing %r took %.3f seconds", what, seconds)

    def _callback_failed(self, handle: Any, error: BaseException) -> None:
        """Tell the exception handler what a callback raised."""
        context = {
            "message": f"Exception in callback {describe_callback(handle)}",
            "exception": error,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)
