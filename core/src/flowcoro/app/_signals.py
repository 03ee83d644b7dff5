"""SIGTERM and SIGINT as a request to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["stop_signals"]

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals(at_once: Callable[[], object], ask: Callable[[str], object]) -> Iterator[None]:
    """Ask to stop on SIGTERM and SIGINT; in another thread than the main one do nothing.

    Handlers of the signal module, since those of the loop do not run while the loop
    is blocked, and somebody should notice that then. The loop's own come first: they
    make it wake for a signal that arrives as it goes to sleep, or in another thread.

    Args:
        at_once: called within the signal's handler, so it must be short and take no lock.
        ask: called on the running loop, with the signal's name.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's; the caller stops the application itself
        return
    loop = asyncio.get_running_loop()

    def asked(number: int, frame: object) -> None:
        at_once()
        loop.call_soon_threadsafe(ask, signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    for number in _STOP_SIGNALS:
        with suppress(NotImplementedError):  # Windows, whose loops wake for any signal
            loop.add_signal_handler(number, _wake)
        signal.signal(number, asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            # None stands for a handler that Python did not install.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _wake() -> None:
    """Do nothing: the loop is awake, which is all that was wanted."""
