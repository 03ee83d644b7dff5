"""Connection: a stream of bytes to a peer, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import anyio
import anyio.abc
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from flowcoro import _native
from flowcoro._loop import Loop

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Address", "Connection", "TlsFacts"]

Address = tuple[Any, ...] | str | bytes
"""Host and port (and, with IPv6, flow label and scope), or the path of a Unix socket; bytes are
an abstract name of Linux."""

_MOST_AT_ONCE = 1 << 20  # bytes of a file that one system call sends
_LONGER = 3600.0  # seconds by which asyncio's own limit of a handshake comes after ours
_FOR_EVER = 1e8  # seconds: asyncio's handshakes cannot be without a limit


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a TLS handshake came to.

    Attributes:
        version: such as `TLSv1.3`.
        cipher: name of the cipher suite.
        alpn: the protocol that was chosen by ALPN (RFC 7301), if any.
        certificate: the peer's, as `ssl.SSLSocket.getpeercert` tells it; empty when it was not
            asked for.
    """

    version: str | None
    cipher: str | None
    alpn: str | None
    certificate: Mapping[str, Any]


def address_facts(local: Address | None, peer: Address | None) -> dict[Any, Callable[[], Any]]:
    """Typed attributes of anyio about addresses: those that such addresses have."""
    known = local or peer
    facts: dict[Any, Callable[[], Any]] = {
        SocketAttribute.local_address: lambda: local,
        SocketAttribute.remote_address: lambda: peer,
    }
    if not isinstance(known, tuple):
        family = getattr(socket, "AF_UNIX", socket.AF_UNSPEC)
    else:
        family = socket.AF_INET if len(known) == 2 else socket.AF_INET6
    facts[SocketAttribute.family] = lambda: family
    if isinstance(local, tuple):
        facts[SocketAttribute.local_port] = lambda: local[1]
    if isinstance(peer, tuple):
        facts[SocketAttribute.remote_port] = lambda: peer[1]
    return facts


def check_context(tls: object) -> None:
    """See that it is a TLS context, or None.

    Raises:
        TypeError: it is something else.
    """
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls is an ssl.SSLContext, not {tls!r}")


class Connection(_native.ByteStream, anyio.abc.ByteStream):
    """A stream of bytes to a peer; made by `TcpClient`, `TcpServer` and their like.

    It is an `anyio.abc.ByteStream` as well. One task at a time may read, any may write. A read
    that is cancelled has taken nothing; a write that is cancelled while it waits has been taken,
    and goes out. As an async context manager it closes itself at the end; one that is dropped
    while it is open closes at once, with a `ResourceWarning`.
    """

    if TYPE_CHECKING:  # the native part's

        def read(self, max_bytes: int = 65536) -> Awaitable[bytes]:
            """Wait for bytes, and return those that are there.

            Args:
                max_bytes: how many at most.

            Returns:
                At least one byte; none when the peer has sent all it will send.

            Raises:
                anyio.BrokenResourceError: the connection broke.
                anyio.ClosedResourceError: it was closed on this side.
                anyio.BusyResourceError: another task is reading.
            """

        def read_exactly(self, size: int, /) -> Awaitable[bytes]:
            """Wait for so many bytes.

            Raises:
                anyio.IncompleteRead: the peer's end came before; what it sent can still be read.
                anyio.BrokenResourceError: the connection broke before.
            """

        def write(self, data: Buffer, /) -> Awaitable[None]:
            """Send bytes, after those that were written before.

            They are taken at once; to await it waits while more than 64 KiB are unsent.

            Raises:
                anyio.BrokenResourceError: the connection broke, or the peer ended it.
                anyio.ClosedResourceError: it was closed on this side.
            """

        def write_many(self, pieces: Iterable[Buffer], /) -> Awaitable[None]:
            """Send several pieces of bytes by as few system calls as can be; see `write`."""

    _tls: TlsFacts | None = None
    _known_peer: Address | None = None
    _transport: asyncio.Transport | None = None

    @property
    def peer(self) -> Address | None:
        """The other side's address; None when it has none."""
        if self._transport is not None:
            return self._known_peer
        return self._peer or self._known_peer

    @property
    def local_address(self) -> Address | None:
        """This side's address; None when it has none, or is closed."""
        if self._transport is not None:
            return self._transport.get_extra_info("sockname") or None
        return self._local

    @property
    def tls(self) -> TlsFacts | None:
        """What the TLS handshake came to; None without TLS."""
        return self._tls

    @property
    def is_open(self) -> bool:
        """Whether bytes may still come or go."""
        return self._is_open and not self._is_closed

    async def read_until(self, separator: bytes, max_bytes: int = 65536) -> bytes:
        """Wait for a separator, and return what is before it, and it.

        Args:
            separator: at least one byte.
            max_bytes: how many at most, with the separator.

        Raises:
            anyio.DelimiterNotFound: there are so many bytes without it; they can still be read.
            anyio.IncompleteRead: the peer's end came before; likewise.
            anyio.BrokenResourceError: the connection broke before.
        """
        try:
            return await self._read_until(separator, max_bytes)
        except anyio.DelimiterNotFound:
            raise anyio.DelimiterNotFound(max_bytes) from None

    async def readline(self, max_bytes: int = 65536) -> bytes:
        r"""Return a line with its `\n`; at the peer's end what is left, at last nothing.

        Raises:
            anyio.DelimiterNotFound: the line is longer than `max_bytes`.
            anyio.BrokenResourceError: the connection broke before.
        """
        try:
            return await self._read_until(b"\n", max_bytes)
        except anyio.DelimiterNotFound:
            raise anyio.DelimiterNotFound(max_bytes) from None
        except anyio.IncompleteRead:
            return await self.read(max_bytes)

    async def send_file(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file's bytes, by the kernel alone where it can (sendfile(2)).

        Args:
            file: open for reading in binary mode; its position is neither used nor moved.
            offset: where to begin, in bytes.
            count: how many bytes at most; to the end when not given.

        Returns:
            How many bytes were sent.

        Raises:
            anyio.BrokenResourceError: the connection broke.
            anyio.ClosedResourceError: it was closed on this side.
            anyio.BusyResourceError: a file is being sent already. Writes get it as well, for as
                long as one is.
            ValueError: `offset` or `count` is negative.
        """
        if offset < 0 or (count is not None and count < 0):
            raise ValueError(f"offset and count must not be negative, not {offset} and {count}")
        end = os.fstat(file.fileno()).st_size if count is None else offset + count
        await self._flush()
        self._hold_writes(True)
        try:
            if self._transport is not None or not hasattr(os, "sendfile"):
                return await self._send_file_by_hand(file, offset, end)
            return await self._send_file_by_kernel(file.fileno(), offset, end)
        finally:
            self._hold_writes(False)

    async def _send_file_by_kernel(self, file: int, offset: int, end: int) -> int:
        begin = offset
        while offset < end:
            if not self.is_open:
                raise self._error("closed" if self._is_closed else "broken", None)
            try:
                sent = os.sendfile(self._fd, file, offset, min(end - offset, _MOST_AT_ONCE))
            except BlockingIOError:
                await self._until_writable()
                continue
            except (BrokenPipeError, ConnectionError) as error:
                raise self._error("broken", error) from error
            if sent == 0:
                break
            offset += sent
            self._count_sent(sent)
            await asyncio.sleep(0)
        return offset - begin

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        fd = self._fd
        loop.add_writer(fd, _finish, writable)
        self._wake_at_end(writable)
        try:
            await writable
        finally:
            self._wake_at_end(None)
            if self._fd == fd:  # at the connection's end the native part has removed it
                loop.remove_writer(fd)

    async def _send_file_by_hand(self, file: BinaryIO, offset: int, end: int) -> int:
        begin = offset
        while offset < end:
            size = min(end - offset, 256 * 1024)
            data = await asyncio.to_thread(os.pread, file.fileno(), size, offset)
            if not data:
                break
            self._hold_writes(False)  # but for this one
            taken = self.write(data)
            self._hold_writes(True)
            await taken
            offset += len(data)
        return offset - begin

    async def send_eof(self) -> None:
        """Tell the peer that no more is sent; it may send on.

        Raises:
            NotImplementedError: over TLS, which has no such thing in Python.
        """
        if self._tls is not None:
            raise NotImplementedError("a TLS connection cannot be half-closed")
        self._end_writing()

    async def close(self) -> None:
        """Close when what was written has gone out.

        What the peer sends from now on is lost. Cancelled, it closes at once.
        """
        self._close()
        try:
            await self._wait_closed()
        except BaseException:
            self._abort(False)
            raise

    async def aclose(self) -> None:
        """The same as `close`, under anyio's name."""
        await self.close()

    def abort(self, *, reset: bool = False) -> None:
        """Close at once; what is unsent is lost.

        Args:
            reset: whether a TCP peer is to see a reset rather than the end.
        """
        if reset and self._transport is not None and self._is_open:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._abort(reset)

    # As anyio's ByteStream.

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Like `read`; the peer's end raises `anyio.EndOfStream`."""
        data = await self.read(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """The same as `write`."""
        await self.write(item)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Typed attributes of anyio: the addresses, and what TLS came to."""
        facts = address_facts(self.local_address, self.peer)
        if (tls := self._tls) is not None and self._transport is not None:
            over: ssl.SSLObject = self._transport.get_extra_info("ssl_object")
            facts[TLSAttribute.tls_version] = lambda: tls.version
            facts[TLSAttribute.alpn_protocol] = lambda: tls.alpn
            facts[TLSAttribute.peer_certificate] = lambda: dict(tls.certificate)
            facts[TLSAttribute.peer_certificate_binary] = lambda: over.getpeercert(True)
            facts[TLSAttribute.cipher] = over.cipher
            facts[TLSAttribute.server_side] = lambda: over.server_side
            facts[TLSAttribute.shared_ciphers] = over.shared_ciphers
            facts[TLSAttribute.ssl_object] = lambda: over
        return facts

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<{type(self).__name__} to {self.peer!r} {state}>"

    # Called by the native part.

    def _error(self, kind: str, lost: BaseException | None) -> Exception:
        error: Exception
        match kind:
            case "closed":
                error = anyio.ClosedResourceError(f"the connection to {self.peer!r} is closed")
            case "busy":
                error = anyio.BusyResourceError("using")
            case "ended":
                error = anyio.ClosedResourceError(f"the end was sent to {self.peer!r} already")
            case "limit":
                error = anyio.DelimiterNotFound(self._buffered)
            case "incomplete":
                error = anyio.IncompleteRead()
            case _:
                why = f": {lost}" if lost is not None else ""
                error = anyio.BrokenResourceError(f"the connection to {self.peer!r} is broken{why}")
        error.__cause__ = lost
        return error

    # How they are made.

    @classmethod
    async def _over(
        cls,
        sock: socket.socket,
        tls: ssl.SSLContext | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        handshake_timeout: float | None = None,
    ) -> Self:
        """Make one over a connected socket, which is its own from now on."""
        loop = asyncio.get_running_loop()
        self = cls()
        if tls is None and isinstance(loop, Loop):
            try:
                self._open(loop, sock.fileno())
            except BaseException:
                sock.close()
                raise
            sock.detach()
            return self
        feeder = _Feeder(self)
        options: dict[str, Any] = {"ssl": tls}
        if tls is not None:
            least = _FOR_EVER if handshake_timeout is None else handshake_timeout + _LONGER
            options["ssl_handshake_timeout"] = least
        limit = asyncio.timeout(handshake_timeout if tls is not None else None)
        # From the first turn on the socket is the transport's, which closes it when this fails.
        try:
            async with limit:
                if server_side:
                    await loop.connect_accepted_socket(lambda: feeder, sock, **options)
                else:
                    name = server_hostname if tls is not None else None
                    await loop.create_connection(
                        lambda: feeder, sock=sock, server_hostname=name, **options
                    )
        except BaseException as error:
            self.abort()
            if isinstance(error, TimeoutError) and limit.expired():
                raise TimeoutError(
                    f"the TLS handshake took more than {handshake_timeout} seconds"
                ) from error
            if isinstance(error, ConnectionResetError) and not error.args:  # asyncio's own
                raise ConnectionResetError(
                    errno.ECONNRESET, "the peer ended the connection before the handshake was over"
                ) from error
            raise
        feeder.kept = None  # whoever called has it now
        return self

    def _take_transport(self, transport: asyncio.Transport, feeder: _Feeder) -> None:
        self._transport = transport
        self._known_peer = transport.get_extra_info("peername") or None
        self._open_over(asyncio.get_running_loop(), transport, feeder)
        over: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if over is not None:
            cipher = over.cipher()
            self._tls = TlsFacts(
                over.version(),
                cipher[0] if cipher is not None else None,
                over.selected_alpn_protocol(),
                over.getpeercert() or {},
            )


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Feeder(asyncio.Protocol):
    """Hands a connection what an asyncio transport receives.

    It has the connection only while somebody waits in it: then the native part says so.
    """

    def __init__(self, connection: Connection) -> None:
        self.kept: Connection | None = connection
        self._find: Callable[[], Connection | None] = weakref.ref(connection)
        self._with_tls = False

    def connection_made(self, transport: Any) -> None:
        connection = self._find()
        if connection is not None:
            connection._take_transport(transport, self)
            self._with_tls = connection.tls is not None

    def data_received(self, data: bytes) -> None:
        connection = self._find()
        if connection is not None:
            connection._feed(data)

    def eof_received(self) -> bool:
        connection = self._find()
        if connection is not None:
            connection._feed_end()
        return not self._with_tls  # TLS cannot stay half open

    def pause_writing(self) -> None:
        connection = self._find()
        if connection is not None:
            connection._pause_writing()

    def resume_writing(self) -> None:
        connection = self._find()
        if connection is not None:
            connection._resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        connection = self._find()
        if connection is not None:
            connection._feed_lost(exc)
