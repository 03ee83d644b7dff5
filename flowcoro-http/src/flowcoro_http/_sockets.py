"""Opening of listening sockets."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading

import anyio

__all__ = ["ListenError", "SharedListeners", "open_sockets", "udp_beside", "url_of"]

BALANCES = sys.platform == "linux"
"""Whether the kernel shares connections out among sockets with `SO_REUSEPORT`."""

_ATTEMPTS = 10
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class ListenError(OSError):
    """A server cannot listen; the message names the address and the reason."""


async def open_sockets(
    host: str, port: int, *, backlog: int, reuse_port: bool = False, udp: bool = False
) -> list[socket.socket]:
    """Listen on every address that a host name has.

    Args:
        host: a name or an address; empty for every interface.
        port: 0 takes a free one, the same on every address.
        backlog: connections that may wait to be accepted.
        reuse_port: let other processes listen on the port as well.
        udp: see to it that the port is free on UDP too.

    Raises:
        ListenError: naming host, port and reason.
    """
    try:
        found = await anyio.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    # Linux may give an address once for each protocol.
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    attempts = _ATTEMPTS if port == 0 and (udp or len(addresses) > 1) else 1
    for attempt in range(attempts):
        try:
            listeners = _listen(addresses, backlog, reuse_port=reuse_port)
            if udp:
                _check_udp(listeners)
            return listeners
        except OSError as error:
            # The port that was free on the first address is taken on another: again.
            if error.errno == errno.EADDRINUSE and attempt + 1 < attempts:
                continue
            if isinstance(error, ListenError):
                raise
            raise ListenError(f"cannot listen on {_show(host, port)}: {_reason(error)}") from error
    raise AssertionError("unreachable")  # pragma: no cover


def udp_beside(listener: socket.socket) -> socket.socket:
    """Return a UDP socket with the address and port of a listener.

    Raises:
        ListenError: naming them and the reason.
    """
    made = socket.socket(listener.family, socket.SOCK_DGRAM)
    address = listener.getsockname()
    try:
        if hasattr(socket, "SO_REUSEPORT") and listener.getsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT
        ):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listener.family is socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
    except OSError as error:
        made.close()
        shown = f"{_show(*address[:2])}/udp"
        failure = ListenError(f"cannot listen on {shown}: {_reason(error)}")
        failure.errno = error.errno
        raise failure from error
    return made


class SharedListeners:
    """Where the first event loop of a process listens, for those of the other threads.

    Each thread has sockets of its own on the same addresses, among which the kernel shares
    connections out, also where the first was given a free port. Where the kernel does not,
    the others get duplicates of the first one's, from which all accept.

    Args:
        listeners: the first one's.
        threads: how many there are, with the first.
    """

    def __init__(self, listeners: list[socket.socket], threads: int) -> None:
        self._lock = threading.Lock()
        self._addresses = [(each.family, each.getsockname()) for each in listeners]
        self._copies: list[list[socket.socket]] | None = None
        if not BALANCES:
            self._copies = [[each.dup() for each in listeners] for _ in range(threads - 1)]

    def open(self, backlog: int) -> list[socket.socket]:
        """Return the sockets of a further thread.

        Raises:
            ListenError: the address cannot be listened on; or the first does not listen
                any more.
        """
        if self._copies is not None:
            with self._lock:
                if not self._copies:
                    raise ListenError("the first thread has stopped listening")
                return self._copies.pop()
        try:
            return _listen(self._addresses, backlog, reuse_port=True)
        except OSError as error:
            host, port = self._addresses[0][1][:2]
            raise ListenError(f"cannot listen on {_show(host, port)}: {_reason(error)}") from error

    def close(self) -> None:
        """Close what nobody took: a socket that is left open would go on to listen."""
        with self._lock:
            for copies in self._copies or ():
                for each in copies:
                    each.close()
            if self._copies is not None:
                self._copies = []


def url_of(listener: socket.socket, *, secure: bool, host: str = "") -> str:
    """Return the URL under which a listening socket can be reached from here."""
    address = listener.getsockname()
    shown = address[0]
    if shown in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        shown = "127.0.0.1" if listener.family is socket.AF_INET else "::1"
    if host and not _is_address(host) and host != "*":
        shown = host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if secure else 'http'}://{shown}:{address[1]}"


def _listen(
    addresses: list[tuple[socket.AddressFamily, tuple[str, int]]],
    backlog: int,
    *,
    reuse_port: bool,
) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, address in addresses:
            port = listeners[0].getsockname()[1] if listeners else address[1]
            try:
                listeners.append(
                    _bind(family, (address[0], port, *address[2:]), backlog, reuse_port=reuse_port)
                )
            except OSError as error:
                # A name may have an address that this machine lacks (IPv6, often).
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                failure = error
        if not listeners:
            raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _check_udp(listeners: list[socket.socket]) -> None:
    try:
        for listener in listeners:
            udp_beside(listener).close()
    except BaseException:
        for listener in listeners:
            listener.close()
        raise


def _bind(
    family: socket.AddressFamily,
    address: tuple[str | int, ...],
    backlog: int,
    *,
    reuse_port: bool,
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows this option would let another process take the port over.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port and hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use; stop what listens there or choose another port"
    if error.errno == errno.EACCES:
        return "not allowed; ports below 1024 need privileges"
    return error.strerror or str(error)
