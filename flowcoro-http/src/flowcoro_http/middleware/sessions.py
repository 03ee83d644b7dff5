"""Sessions in a signed cookie.

Nothing is kept on the server: the cookie holds the session's values, as JSON, and a
signature. The client can read them but not change them, and can send an old cookie until
`max_age` is over, even after the session was cleared: what must be revoked or hidden
belongs into a store, with its key in the session.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, MutableMapping, Sequence
from time import time as _now
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flowcoro_http._checks import check_choice, check_flag, check_int, check_text
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._response import Response
from flowcoro_http.middleware._vary import add_vary

if TYPE_CHECKING:
    from itsdangerous import URLSafeTimedSerializer

__all__ = ["Session", "Sessions"]

logger = logging.getLogger("flowcoro.http")

_STATE = "flowcoro_http.session"
_SHORTEST_KEY = 16
_LARGEST_COOKIE = 4096
"""Name, value and attributes: what every browser takes (RFC 6265, section 6.1)."""


class Session(MutableMapping[str, Any]):
    """The values of one visitor, as a dictionary of what JSON can hold.

    It is read when it is first used, and sent again when it differs from what came; changes
    within a value count as well. `clear` makes the browser forget it.
    """

    def __init__(self, sessions: Sessions, cookie: str) -> None:
        self._sessions = sessions
        self._cookie = cookie
        self._values: dict[str, Any] | None = None
        self._before = b"{}"
        self._old = False

    @staticmethod
    def of(request: RequestHead) -> Session:
        """Return the session of a request.

        Args:
            request: the request.

        Raises:
            RuntimeError: the middleware `Sessions` is not around it.
        """
        session = request.state.get(_STATE)
        if not isinstance(session, Session):
            raise RuntimeError("no session: the middleware Sessions is not around this request")
        return session

    @property
    def _data(self) -> dict[str, Any]:
        if self._values is None:
            self._values, self._old = self._sessions.read(self._cookie)
            self._before = _encode(self._values)
        return self._values

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        del self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return "<Session>"  # its values are nobody's business

    def finish(self, response: Response) -> None:
        """Add to a response what the session needs there.

        Raises:
            TypeError: a value cannot be JSON.
            ValueError: the values are too many for a cookie.
        """
        if self._values is None:
            return
        add_vary(response, "cookie")
        after = _encode(self._values)
        if after != self._before or (self._old and self._values):
            response.headers.setdefault("cache-control", "private")
            self._sessions.write(response, self._values)
        elif self._cookie and not self._values:
            self._sessions.write(response, self._values)  # one that cannot be read


class Sessions(Middleware):
    """Keeps a session for each visitor, in a cookie that only we can sign.

    Handlers get it by `Session.of(request)`. Needs `flowcoro-http[sessions]`.

    Args:
        keys: the secrets that sign, of 16 bytes at least, such as `secrets.token_hex(32)`
            gives. The first signs; the others are still good for reading. So to change it put
            the new one before it, and remove the old one after `max_age`.
        cookie: the cookie's name.
        max_age: seconds that a session lives after it changed last.
        refresh_after: seconds after which one that is used is signed anew, and so lives
            longer; 0 for never.
        path: where it is sent.
        domain: to which hosts it is sent; this one when empty.
        secure: only over HTTPS, and by browsers to `localhost`.
        same_site: when other sites' requests carry it.
        order: where it stands.

    Raises:
        ValueError: there is no key, or a short one; `none` without `secure`; a number or a text
            that a cookie cannot have.
        TypeError: an argument is of another type, such as one key for several.
        ModuleNotFoundError: itsdangerous is not there.
    """

    def __init__(
        self,
        keys: Sequence[str | bytes],
        *,
        cookie: str = "session",
        max_age: int = 14 * 24 * 60 * 60,
        refresh_after: int = 0,
        path: str = "/",
        domain: str = "",
        secure: bool = True,
        same_site: Literal["lax", "strict", "none"] = "lax",
        order: int = -200,
    ) -> None:
        super().__init__("sessions", self._handle, order)
        for field, text in {"cookie": cookie, "path": path, "domain": domain}.items():
            check_text(f"Sessions: {field}", text)
        check_int("Sessions: max_age", max_age, least=1)
        check_int("Sessions: refresh_after", refresh_after)
        check_flag("Sessions: secure", secure)
        check_choice("Sessions: same_site", same_site, ("lax", "strict", "none"))
        if same_site == "none" and not secure:
            raise ValueError("Sessions: browsers take same_site 'none' only with secure")
        self._serializer = _serializer(keys, cookie)
        self._cookie = cookie
        self._max_age = max_age
        self._refresh_after = refresh_after
        self._attributes: dict[str, Any] = {
            "path": path,
            "domain": domain,
            "secure": secure,
            "same_site": same_site,
        }
        Response().set_cookie(cookie, "", **self._attributes)  # refuses what none can have

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        session = Session(self, request.cookies.get(self._cookie, ""))
        request.state[_STATE] = session
        response = await call_next(request)
        session.finish(response)
        return response

    def read(self, cookie: str) -> tuple[dict[str, Any], bool]:
        """Read a cookie; whatever is wrong with it, it is nobody's then.

        Returns:
            The values, and whether they are due to be signed anew.
        """
        if not cookie or len(cookie) > _LARGEST_COOKIE:
            return {}, False
        from itsdangerous import BadData

        try:
            values, signed = self._serializer.loads(
                cookie, max_age=self._max_age, return_timestamp=True
            )
        except BadData as error:
            # The kind only: neither the value nor what it should be.
            logger.debug("a session's cookie is not taken: %s", type(error).__name__)
            return {}, False
        if not isinstance(values, dict):
            return {}, False
        return values, 0 < self._refresh_after < _now() - signed.timestamp()

    def write(self, response: Response, values: dict[str, Any]) -> None:
        """Set the cookie, or delete it when there are no values."""
        if not values:
            response.set_cookie(self._cookie, "", max_age=0, **self._attributes)
            return
        value = self._serializer.dumps(values)
        response.set_cookie(self._cookie, value, max_age=self._max_age, **self._attributes)
        size = len(response.headers.get_all("set-cookie")[-1])
        if size > _LARGEST_COOKIE:
            raise ValueError(
                f"the session's cookie has {size} bytes, and browsers take {_LARGEST_COOKIE}: "
                "keep the values elsewhere and their key in the session"
            )


class _Json:
    """The serializer that itsdangerous is given."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return _encode(value).decode()  # text, by which itsdangerous sees what to return

    @staticmethod
    def loads(content: str | bytes) -> Any:
        return msgspec.json.decode(content)


def _encode(values: Any) -> bytes:
    return msgspec.json.encode(values, order="deterministic")


def _serializer(keys: Sequence[str | bytes], cookie: str) -> URLSafeTimedSerializer:
    from itsdangerous import URLSafeTimedSerializer

    # No error repeats what was given: it may be a secret.
    if isinstance(keys, str | bytes | bytearray) or not isinstance(keys, Sequence):
        raise TypeError(
            f"Sessions: keys: expected several, the one that signs first, not {type(keys).__name__}"
        )
    if not keys:
        raise ValueError("Sessions: keys: sessions need a key that signs them")
    secrets: list[bytes] = []
    for position, key in enumerate(keys, start=1):
        if not isinstance(key, str | bytes):
            raise TypeError(
                f"Sessions: key {position}: expected text or bytes, not {type(key).__name__}"
            )
        secret = key.encode() if isinstance(key, str) else key
        if len(secret) < _SHORTEST_KEY:
            raise ValueError(
                f"Sessions: key {position} of sessions is shorter than {_SHORTEST_KEY} bytes"
            )
        secrets.append(secret)
    return URLSafeTimedSerializer(
        secrets[::-1],  # itsdangerous signs with the last
        salt=f"flowcoro_http.session.{cookie}",
        serializer=_Json,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
