"""What is not hot of a native loop's transports, and how they are made."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import socket
import sys
import warnings
import weakref
from asyncio import constants, transports, trsock
from asyncio.log import logger
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from flowcoro import _native

if TYPE_CHECKING:
    from flowcoro._loop._loop import Loop

__all__ = [
    "FlowControlled",
    "SocketTransport",
    "Transports",
    "accept_connections",
    "can_accept",
    "open_transport",
    "pause_accepting",
]

_DEFAULT_HIGH = 64 * 1024


class _SocketTransportBase(transports.Transport):
    """The base class of the native type, which has what is hot."""

    __slots__ = ()

    _start_tls_compatible = True
    # asyncio's own way to send a file through a transport: pause, wait until all has been sent,
    # have the kernel do it.
    _sendfile_compatible = asyncio.constants._SendfileMode.TRY_NATIVE

    if TYPE_CHECKING:  # the native part's
        _loop: Any
        _sock: Any
        _extra: Any
        _server: Any
        _sock_fd: Any
        _is_open: Any
        _has_sock: Any
        _peer: Any
        _address: Any

        def _force_close(self, exception: BaseException | None) -> None: ...
        def _give_up_sock(self) -> Any: ...
        def _set_limits(self, high: int, low: int) -> None: ...

    def can_write_eof(self) -> bool:
        """Whether `write_eof` works: always."""
        return True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns `socket`, `sockname` or `peername`, or what a wrapper added."""
        if self._extra is not None and name in self._extra:
            return self._extra[name]
        if name == "peername":
            return self._peer or _address(self._sock, socket.socket.getpeername, default)
        if name == "sockname":
            return self._address or _address(self._sock, socket.socket.getsockname, default)
        if name == "socket" and self._has_sock:
            return trsock.TransportSocket(self._sock)
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` and `resume_writing` are called, in bytes that are unsent.

        Raises:
            ValueError: Not high >= low >= 0.
        """
        if high is None:
            high = _DEFAULT_HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._set_limits(high, low)

    def _warn_of_writes(self) -> None:
        logger.warning("socket.send() raised exception.")

    def _report(self, message: str, error: BaseException) -> None:
        """Tell the exception handler what one of the protocol's methods raised."""
        if self._loop is not None:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": error,
                    "transport": self,
                    "protocol": self.get_protocol(),
                }
            )

    def _fatal_error(self, error: BaseException, message: str = "Fatal error on transport") -> None:
        """End the connection, and tell why unless that is the network's daily bread."""
        if isinstance(error, OSError):
            if self._loop is not None and self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=True)
        else:
            self._report(message, error)
        self._force_close(error)

    def _make_sock(self, fd: int) -> socket.socket:
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        return sock

    def _close_sock(self) -> None:
        sock = self._give_up_sock()
        if sock is not None:
            sock.close()

    def _connection_lost(self) -> None:
        """The reactor has let go of the socket, and the protocol knows."""
        server = self._server
        self._close_sock()
        if server is not None:
            server._detach(*_known_to_server(self))

    def __repr__(self) -> str:
        state = "closed" if not self._is_open else "closing" if self.is_closing() else "open"
        return f"<SocketTransport fd={self._sock_fd} {state}>"

    def __del__(self) -> None:
        if self._has_sock:
            warnings.warn(
                f"unclosed transport {self!r}", ResourceWarning, stacklevel=1, source=self
            )
            self._close_sock()


SocketTransport = _native.make_socket_transport_type(_SocketTransportBase)
"""asyncio's transport of a connected stream socket."""


class FlowControlled(transports._FlowControlMixin):
    """A native transport as asyncio's fallback of `sendfile` insists on: of its mixin's class."""

    if TYPE_CHECKING:
        _protocol_paused: bool

    def __init__(self, transport: Any) -> None:
        super().__init__(None, transport._loop)
        self._protocol_paused = transport._protocol_paused
        for name in (
            "get_protocol",
            "is_closing",
            "is_reading",
            "pause_reading",
            "resume_reading",
            "set_protocol",
            "write",
        ):
            setattr(self, name, getattr(transport, name))


def _known_to_server(transport: Any) -> tuple[Any, ...]:
    # Since 3.13 a server knows its transports, for `close_clients`; before it counted them.
    return (transport,) if sys.version_info >= (3, 13) else ()


_WITH_PORTS = (socket.AF_INET, socket.AF_INET6)


def _address(sock: socket.socket | None, ask: Callable[[socket.socket], Any], default: Any) -> Any:
    try:
        return default if sock is None else ask(sock)
    except OSError:
        return default


class Transports(MutableMapping[int, Any]):
    """What asyncio's loop has as `_transports`: by descriptor, so that no reader takes it as well.

    Those of connected sockets the native part knows; a deletion excuses one for a while, as
    asyncio's `sendfile` does.
    """

    def __init__(self, native: Callable[[int], Any]) -> None:
        self._native = native
        self._excused: set[int] = set()
        others: Any = weakref.WeakValueDictionary()
        self._others: MutableMapping[int, Any] = others
        self.data: dict[int, Any] = others.data  # for the native part: whether there are any

    def __getitem__(self, fd: int) -> Any:
        transport = self._native(fd) if fd not in self._excused else None
        return transport if transport is not None else self._others[fd]

    def __setitem__(self, fd: int, transport: Any) -> None:
        self._excused.discard(fd)
        if not isinstance(transport, SocketTransport):
            self._others[fd] = transport

    def __delitem__(self, fd: int) -> None:
        if self._native(fd) is not None:
            self._excused.add(fd)
        else:
            del self._others[fd]

    def __iter__(self) -> Iterator[int]:
        return iter(self._others)

    def __len__(self) -> int:
        return len(self._others)


def open_transport(
    loop: Loop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[Any] | None,
    extra: dict[str, Any] | None,
    server: Any,
) -> Any:
    """Make the transport of a connected socket; its protocol is told in the next turn.

    Raises:
        RuntimeError: The socket has a transport already.
    """
    loop._ensure_fd_no_transport(sock)
    # The peer's address is kept natively where it has a port; most connections need no dict.
    if extra is not None and not (extra.keys() - {"peername"}) and sock.family in _WITH_PORTS:
        extra = None
    transport = SocketTransport()
    transport._open(loop, sock, protocol, extra, server, waiter, contextvars.copy_context())
    if server is not None:
        server._attach(*_known_to_server(transport))
    return transport


def can_accept(loop: Loop, listener: socket.socket, sslcontext: Any) -> bool:
    """Whether `accept_connections` may stand in for asyncio's way: with a task for each.

    In debug mode it does not, since that has a line of log to write about each.
    """
    return sslcontext is None and not loop.get_debug() and listener.family in _WITH_PORTS


def accept_connections(
    loop: Loop, listener: socket.socket, protocol_factory: Callable[[], Any], server: Any, most: int
) -> None:
    """Accept what connections there are, and make their transports.

    No Python object is made of their sockets before somebody asks for it.

    Raises:
        OSError: The listener cannot accept.
    """
    for _ in range(most):
        fd = listener.fileno()
        transport = SocketTransport()
        if fd == -1 or not transport._accept(fd):
            return
        protocol = None
        context = contextvars.copy_context()
        try:
            protocol = context.run(protocol_factory)
            _open_accepted(transport, loop, protocol, server, context)
        except (SystemExit, KeyboardInterrupt):
            transport._close_sock()
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is told
            transport._close_sock()
            told = {
                "message": "Error on transport creation for incoming connection",
                "exception": error,
                "transport": transport,
            }
            if protocol is not None:
                told["protocol"] = protocol
            loop.call_exception_handler(told)


def _open_accepted(
    transport: Any, loop: Loop, protocol: Any, server: Any, context: contextvars.Context
) -> None:
    if server is None:
        transport._open(loop, None, protocol, None, None, None, context)
        return
    server._attach(*_known_to_server(transport))
    try:
        transport._open(loop, None, protocol, None, server, None, context)
    except BaseException:
        server._detach(*_known_to_server(transport))
        raise


_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def pause_accepting(
    loop: Loop, listener: socket.socket, error: OSError, again: Callable[[], None]
) -> bool:
    """Accept no more for a while when what is lacking may be there again then.

    Returns:
        Whether that is so.
    """
    if error.errno not in _EXHAUSTED:
        return False
    loop.call_exception_handler(
        {
            "message": "socket.accept() out of system resource",
            "exception": error,
            "socket": trsock.TransportSocket(listener),
        }
    )
    loop._remove_reader(listener.fileno())
    loop.call_later(constants.ACCEPT_RETRY_DELAY, again)
    return True
