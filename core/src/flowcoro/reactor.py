"""Reactors: what the native core asks the kernel to do, and how.

A reactor submits operations to the kernel and reaps their completions. Its backends are
`io_uring`, where the kernel offers and allows what is needed, and `epoll` on Linux, `kqueue` on
macOS and the BSDs, `iocp` on Windows; the environment's `FLOWCORO_REACTOR` names one. The reactor
itself is native (`core/native/include/flowcoro/reactor`): here Python learns which backends it can
have, and runs one for the native protocols that other extensions attach to it
(`flowcoro/native_api.h`).
"""

from flowcoro import _native
from flowcoro._native import Reactor

__all__ = ["Reactor", "available", "backends", "why_not"]


def backends() -> list[str]:
    """Tell which backends there are for this platform, usable or not.

    Returns:
        Their names, the preferred first.
    """
    return _native.reactor_backends()


def available() -> list[str]:
    """Tell which backends can be used here and now.

    Each is made and given up again, so the answer is the kernel's own.

    Returns:
        Their names, the preferred first.
    """
    return _native.reactor_available()


def why_not(name: str) -> str | None:
    """Tell why a backend cannot be used.

    Args:
        name: The backend's name, such as `io_uring`.

    Returns:
        The kernel's reason, or that there is no such backend here; `None` when it can be used.
    """
    return _native.reactor_why_not(name)
