"""Tells the errors of a client that has left from those of an application.

To send to a client that has gone raises `OSError` (ASGI, "Disconnected Client"), and
frameworks let that out to the server: as it is, translated, in a group, or as what became
of their try to answer 500. None of that is a failure. What the application itself did
wrong meanwhile is one, and is in the same chain of exceptions.
"""

from __future__ import annotations

from flowcoro_http._native import ClientGoneError

__all__ = ["is_departure"]


def is_departure(error: BaseException, status: int = 0) -> bool:
    """Tell whether an error says only that the client has gone.

    Args:
        error: what came out of an application whose client has gone.
        status: of the response that could not be begun any more; 0 if there was none.
    """
    if isinstance(error, ClientGoneError):
        # An answer of 500 is about something: what was being handled when it was sent.
        reason = error.__cause__ or error.__context__
        return status < 500 or reason is None or is_departure(reason)
    if isinstance(error, BaseExceptionGroup):
        return all(is_departure(each, status) for each in error.exceptions)
    if error.__cause__ is not None and is_departure(error.__cause__, status):
        return True
    # Starlette's ClientDisconnect and WebSocketDisconnect, Litestar's WebSocketDisconnect …
    return type(error).__name__.endswith(("Disconnect", "Disconnected"))
