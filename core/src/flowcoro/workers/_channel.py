"""The channel between a supervisor and one worker: a socket pair.

The worker sends one byte when it is ready. Neither side ever sends more; each learns
from the end of the stream that the other is gone, whatever killed it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, MutableMapping

__all__ = ["CHANNEL_VARIABLE", "COUNT_VARIABLE", "WorkerChannel"]

CHANNEL_VARIABLE = "FLOWCORO_WORKER_CHANNEL"
COUNT_VARIABLE = "FLOWCORO_WORKER_COUNT"


class WorkerChannel:
    """The worker's end.

    Args:
        end: the connected socket.
        workers: how many workers serve the application.
    """

    def __init__(self, end: socket.socket, workers: int) -> None:
        self.workers = workers
        self._end = end

    @classmethod
    def from_environment(
        cls, environ: MutableMapping[str, str] = os.environ
    ) -> WorkerChannel | None:
        """Return this process's channel, or None when no supervisor started it.

        The variables are removed: the channel is this process's, not its children's.
        """
        number = environ.pop(CHANNEL_VARIABLE, None)
        workers = int(environ.pop(COUNT_VARIABLE, "1"))
        if number is None:
            return None
        end = socket.socket(fileno=int(number))
        end.set_inheritable(False)
        return cls(end, workers)

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        try:
            self._end.sendall(b"r")
        except OSError:
            # The supervisor is gone; `on_supervisor_gone` tells whoever cares.
            return

    def on_supervisor_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback`, from a thread of its own, once the supervisor has died."""

        def wait() -> None:
            try:
                while self._end.recv(1):
                    pass
            except OSError:
                pass
            callback()

        threading.Thread(target=wait, name="supervisor watch", daemon=True).start()
