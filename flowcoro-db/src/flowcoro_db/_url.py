"""`DatabaseUrl`: a database's address, which never shows its password.

Reading a URL does no I/O and knows no driver: what path and options mean is the
driver's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode

from flowcoro_db.errors import DatabaseUrlError

__all__ = ["DatabaseUrl"]

_FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)\Z", re.DOTALL)
_EXAMPLES = "sqlite:///file.db or postgresql://user:password@host:5432/database"


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A database's address in parts; `str()` and `repr()` hide the password.

    Attributes:
        scheme: what precedes `://`, in lower case; it selects the driver.
        host: host and port as written (perhaps several, comma-separated), or "".
        user: the user, percent-decoded, or None.
        path: what follows the first `/` after the host, percent-decoded.
        options: the query's options, percent-decoded.
    """

    scheme: str
    host: str
    user: str | None
    path: str
    options: Mapping[str, str]
    _base: str = field(compare=False)
    _password: str | None

    @classmethod
    def parse(cls, text: str) -> DatabaseUrl:
        """Read a URL.

        Args:
            text: `scheme://user:password@host:port/path?option=value`; or, for a
                database in memory, `sqlite://:memory:`.

        Raises:
            DatabaseUrlError: it is no URL. The message shows no part of it but the scheme.
        """
        match = _FORM.match(text.strip())
        if match is None:
            raise DatabaseUrlError(f"a database URL looks like {_EXAMPLES}; this one has no '://'")
        scheme, rest = match[1].lower(), match[2]
        base, _, query = rest.partition("?")
        authority, _, path = base.partition("/")
        userinfo, _, host = authority.rpartition("@")
        user, _, password = userinfo.partition(":")
        if not userinfo and authority and "@" in path + query:
            # The authority ended inside a password, so its parts are not what they seem.
            raise DatabaseUrlError(
                f"{scheme}://***: a '/' or '?' in the password must be percent-encoded "
                "(%2F, %3F), as must '@' in a path"
            )
        if host == ":memory:":
            host, path = "", ":memory:"
        return cls(
            scheme=scheme,
            host=host,
            user=unquote(user) or None,
            path=unquote(path),
            options=dict(parse_qsl(query, keep_blank_values=True)),
            _base=f"{scheme}://{base}",
            _password=unquote(password) or None,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no message may hold."""
        hidden = [v for k, v in self.options.items() if "password" in k.lower()]
        return tuple(value for value in (self._password, *hidden) if value)

    def reveal(self, *, without: tuple[str, ...] = ()) -> str:
        """Return the whole URL, password included.

        Args:
            without: names of options to leave out: those that only the driver knows.
        """
        left = {name: value for name, value in self.options.items() if name not in without}
        return f"{self._base}?{urlencode(left)}" if left else self._base

    def redact(self, message: str) -> str:
        """Return `message` with every secret of this URL replaced by `***`."""
        for secret in self.secrets:
            message = message.replace(secret, "***")
        return message

    def __str__(self) -> str:
        password = ":***" if self._password else ""
        user = f"{self.user or ''}{password}@" if self.user or password else ""
        path = self.path if self.path == ":memory:" else f"/{self.path}"
        return f"{self.scheme}://{user}{self.host}{path}"

    def __repr__(self) -> str:
        return f"DatabaseUrl({str(self)!r})"
