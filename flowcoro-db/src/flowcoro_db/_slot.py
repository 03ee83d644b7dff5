"""`Slot`: one place of the pool, and making its connection fit for its next user.

Both clean-ups run shielded from cancellation and within a deadline; a connection that
is not clean by then is terminated. The shield is anyio's: a second native
`Task.cancel()` gets through it. The slot then stays `unsettled`, and whoever has it
next (the session, or the pool when it is given back) finishes the work first.
"""

from __future__ import annotations

import logging

import anyio

from flowcoro_db._driver import DriverConnection

__all__ = ["Slot", "cut"]

logger = logging.getLogger("flowcoro.db")


def cut(connection: DriverConnection) -> None:
    """Terminate a connection, come what may: a driver's mistake must not stop the pool."""
    try:
        connection.terminate()
    except Exception:
        logger.exception("a driver's terminate() raised")


class Slot:
    """The right to one of the pool's places, with or without a connection.

    Attributes:
        connection: the connection; None until it was opened.
        born: when it was opened, by the pool's clock.
        rested: when it was last given back, by the pool's clock.
        unsettled: whether a cancelled call may have left a statement running.
        orphaned: whether the pool opens it for nobody, since its user was cancelled.
    """

    __slots__ = ("born", "connection", "orphaned", "rested", "unsettled")

    def __init__(self) -> None:
        self.connection: DriverConnection | None = None
        self.born = 0.0
        self.rested = 0.0
        self.unsettled = False
        self.orphaned = False

    @property
    def is_usable(self) -> bool:
        """Whether there is a connection and it is open."""
        return self.connection is not None and self.connection.is_usable

    def needs_cleaning(self, *, reset: bool) -> bool:
        """Tell whether `restore` has anything to do.

        Args:
            reset: whether the session's settings may have been changed.
        """
        connection = self.connection
        if connection is None or not connection.is_usable:
            return False
        return reset or self.unsettled or connection.in_transaction

    async def settle(self, timeout: float) -> None:
        """Stop what a cancelled call left running; an open transaction stays open.

        Args:
            timeout: seconds until the connection is terminated instead.
        """
        connection = self.connection
        if connection is None or not connection.is_usable:
            self.unsettled = False
            return
        self.unsettled = True
        try:
            with anyio.move_on_after(timeout, shield=True):
                await connection.interrupt()
                self.unsettled = False
        except Exception as error:  # noqa: BLE001 - a stranger's driver; the connection goes
            logger.warning("a statement could not be interrupted: %s", error)
        if self.unsettled:
            cut(connection)
            self.unsettled = False

    async def restore(self, timeout: float, *, reset: bool) -> None:
        """Settle, roll back what is open and, when asked to, reset the session.

        Args:
            timeout: seconds until the connection is terminated instead.
            reset: whether the session's settings may have been changed.
        """
        if self.unsettled:
            await self.settle(timeout)
        connection = self.connection
        if connection is None or not connection.is_usable:
            return
        clean = False
        try:
            with anyio.move_on_after(timeout, shield=True):
                if connection.in_transaction:
                    await connection.rollback()
                if reset:
                    await connection.reset()
                clean = not connection.in_transaction
        except Exception as error:  # noqa: BLE001 - a stranger's driver; the connection goes
            logger.warning("a connection could not be cleaned: %s", error)
        finally:
            if not clean:
                cut(connection)
