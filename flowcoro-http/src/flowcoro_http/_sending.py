"""From a response to its exchange: whole, or piece by piece while the client is there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Awaitable, Callable

import anyio

from flowcoro_http._problem import ClientDisconnected
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._response import Response
from flowcoro_http._routing import WEBSOCKET

__all__ = ["UnsendableError", "label_of", "send_response"]

logger = logging.getLogger("flowcoro.http")


class UnsendableError(Exception):
    """A response has a status or a header field that cannot be sent; nothing was."""


def label_of(request: RequestHead) -> str:
    """Return what the log calls a request."""
    method = request.method if isinstance(request, Request) else WEBSOCKET
    # The path is the client's: quoted, so that it cannot forge lines of the log.
    return f"{method[:32]} {request.path[:200]!r}"


async def send_response(request: Request, response: Response) -> None:
    """Send a response that is rendered.

    Raises:
        OSError: the client has gone.
        UnsendableError: its status or a field of it is none.
    """
    exchange, body = request.exchange, response.body
    if isinstance(body, bytes):
        try:
            await exchange.respond(response.status, response.headers.raw, body)
        except (TypeError, ValueError) as error:
            raise _unsendable(response, error) from error
        return
    close: Callable[[], Awaitable[None]] | None = getattr(body, "aclose", None)
    try:
        try:
            await exchange.start(response.status, response.headers.raw)
        except (TypeError, ValueError) as error:
            raise _unsendable(response, error) from error
        if response.status in {204, 304} or request.method == "HEAD":
            await exchange.end()
        elif exchange.cancels:
            await _send_pieces(request, body)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_when_gone, request, group.cancel_scope)
                await _send_pieces(request, body)
                group.cancel_scope.cancel()
    finally:
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


def _unsendable(response: Response, error: Exception) -> UnsendableError:
    return UnsendableError(f"a response of status {response.status!r} cannot be sent: {error}")


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    await request.wait_disconnected()
    scope.cancel()


async def _send_pieces(request: Request, pieces: AsyncIterable[bytes]) -> None:
    """Send every piece; where they break off, the client must notice."""
    exchange = request.exchange
    try:
        async for piece in pieces:
            try:
                await exchange.write(piece)
            except OSError as error:
                raise ClientDisconnected("the client left before its response") from error
    except ClientDisconnected:
        exchange.abort()
    except Exception as error:
        # The status is out. Without its end the connection is cut, so that nobody takes
        # the part for the whole.
        logger.error(
            "%s (request %s): its stream failed", label_of(request), request.id, exc_info=error
        )
        exchange.abort()
    else:
        await exchange.end()
