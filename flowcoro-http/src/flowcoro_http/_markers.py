"""What handlers say of a parameter within `Annotated`: where its argument comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowcoro_http._checks import check_int, check_text, check_texts
from flowcoro_http._declared import TOKEN

__all__ = ["Body", "Cookie", "File", "Form", "Header", "Marker", "Path", "Query"]


@dataclass(frozen=True, slots=True)
class Marker:
    """What all of them have; see each."""

    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_text(f"{where}: name", self.name)
        check_text(f"{where}: description", self.description)
        if isinstance(self, Header | Cookie) and self.name and not TOKEN.match(self.name):
            raise ValueError(
                f"{where}: name {self.name!r} is not a token (RFC 9110, section 5.6.2)"
            )


class Path(Marker):
    """Marks a path parameter: `Annotated[int, Path("id")]`.

    Attributes:
        name: its name in the template; the parameter's when empty.
        description: for OpenAPI.
    """


class Query(Marker):
    """Marks a query parameter: `Annotated[str, Query("q")]`.

    Attributes:
        name: its name in the query; the parameter's when empty.
        description: for OpenAPI.
    """


class Header(Marker):
    """Marks a header field: `Annotated[str, Header("user-agent")]`.

    Attributes:
        name: its name; the parameter's with hyphens for underscores when empty.
        description: for OpenAPI.

    Raises:
        ValueError: the name is no token.
    """


class Cookie(Marker):
    """Marks a cookie: `Annotated[str, Cookie("session")]`.

    Attributes:
        name: its name; the parameter's when empty.
        description: for OpenAPI.

    Raises:
        ValueError: the name is no token.
    """


class Body(Marker):
    """Marks the body: JSON for most types, the raw body for `bytes` and `str`.

    Attributes:
        name: not used.
        description: for OpenAPI.
    """


class Form(Marker):
    """Marks a field of a form, or the whole of it: `Annotated[str, Form()]`.

    A scalar, or a list of scalars, is one field; a struct, a dataclass or a `TypedDict` is
    the form, each of its own fields one of the form's.

    Attributes:
        name: the field's name in the form; the parameter's when empty.
        description: for OpenAPI.
    """


@dataclass(frozen=True, slots=True)
class File(Marker):
    """Marks a file of a form: `Annotated[UploadFile, File(max_bytes=1_000_000)]`.

    The type is `UploadFile`, which needs no marker, `bytes` for its content in memory, or a
    list of either.

    Attributes:
        name: the field's name in the form; the parameter's when empty.
        description: for OpenAPI.
        max_bytes: the largest that is taken, else 413; any within the body's limit when 0.
        content_types: the media types that are taken, such as `image/png`, `image/*` or `*/*`, else
            415; any when empty. It is the client that tells the type.
    """

    max_bytes: int = 0
    content_types: Sequence[str] = ()

    def __post_init__(self) -> None:
        Marker.__post_init__(self)
        check_int("File: max_bytes", self.max_bytes, optional=True)
        check_texts("File: content_types", self.content_types, "['image/png']")
