"""URLs, rows and error messages: values without I/O."""

from __future__ import annotations

import enum
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcoro_db import DatabaseError, DatabaseUrl, DatabaseUrlError, Row, RowError
from flowcoro_db._row import convert_rows, make_rows
from flowcoro_db.errors import shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("sqlite://:memory:", "sqlite://:memory:"),
        ("SQLite:///a.db?mode=ro", "sqlite:///a.db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me:s3cret@host:5432/db?password=s3cret", "postgresql://me:***@host:5432/db"),
        ("postgresql://:s3cret@[::1]:5432/db", "postgresql://:***@[::1]:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://m%40e:s3%63ret@host", "postgresql://m@e:***@host/"),
    ],
)
def test_urls_hide_their_password(text: str, shown: str) -> None:
    url = DatabaseUrl.parse(text)
    assert str(url) == shown
    assert repr(url) == f"DatabaseUrl({shown!r})"
    assert DatabaseUrl.parse(url.reveal()).reveal() == url.reveal()
    assert url.redact("it is s3cret") == ("it is ***" if "***" in shown else "it is s3cret")


def test_url_parts() -> None:
    url = DatabaseUrl.parse("postgresql://me:p%2Fw@a:1,b:2/d%20b?x=1&y=")
    assert (url.scheme, url.host, url.user, url.path) == ("postgresql", "a:1,b:2", "me", "d b")
    assert url.options == {"x": "1", "y": ""}
    assert url.secrets == ("p/w",)
    assert url.reveal(without=("x",)) == "postgresql://me:p%2Fw@a:1,b:2/d%20b?y="


@pytest.mark.parametrize("text", ["", "s3cret", "host/s3cret", "://s3cret", "1x://s3cret"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(DatabaseUrlError, match="looks like sqlite:///") as caught:
        DatabaseUrl.parse(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["x://me:s3c/ret@host/db", "x://me:s3c?ret@host/db"])
def test_passwords_that_must_be_encoded(text: str) -> None:
    with pytest.raises(DatabaseUrlError, match="percent-encoded") as caught:
        DatabaseUrl.parse(text)
    assert "s3c" not in str(caught.value)


@given(st.text(min_size=3).filter(lambda p: p.isascii() and p.isalnum()))
def test_no_password_is_ever_shown(password: str) -> None:
    marked = f"#{password}#"
    try:
        url = DatabaseUrl.parse(f"postgresql://u:{marked}@h/d")
    except DatabaseUrlError as error:
        assert marked not in str(error)  # noqa: PT017
    else:
        assert marked not in f"{url} {url!r}"
        assert url.secrets == (marked,)


def test_rows() -> None:
    row, other = make_rows(["id", "name", "id"], [(1, "a", 2), (1, "b", 3)])
    assert row["name"] == row[1] == "a"
    assert row["id"] == row[2] == row[-1] == 2
    assert list(row) == ["id", "name"]
    assert len(row) == 2
    assert "name" in row
    assert "x" not in row
    assert row.as_dict() == dict(row) == {"id": 2, "name": "a"}
    assert row.as_tuple() == (1, "a", 2)
    assert row == {"id": 2, "name": "a"}
    assert row != other
    assert repr(row) == "Row(id=2, name='a')"
    assert row.get("x") is None
    with pytest.raises(KeyError, match="no column 'x'; columns: id, name"):
        row["x"]
    with pytest.raises(IndexError):
        row[3]
    with pytest.raises(TypeError):
        row["id"] = 7  # type: ignore[index]
    assert Row({}, ()).as_dict() == {}


class Colour(enum.Enum):
    RED = "red"


class Painted(msgspec.Struct):
    colour: Colour


def test_an_error_of_conversion_quotes_no_value() -> None:
    rows = make_rows(["colour"], [("red",), ("hidden-value",)])
    with pytest.raises(RowError) as caught:
        convert_rows(rows, Painted, "SELECT colour FROM things")
    assert "row 1, column colour: Invalid enum value" in str(caught.value)
    assert "hidden-value" not in str(caught.value)
    with pytest.raises(RowError, match="missing required field"):
        convert_rows(make_rows([], [()]), Painted, "SELECT")


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT  1\n  FROM t", "SELECT 1 FROM t"),
        ("SELECT 'it''s', $1", "SELECT '***', $1"),
        ("SELECT 'open", "SELECT '***'"),
        ("DO $$ x $$", "DO '***'"),
        ("DO $f$ x $$ $f$, $1", "DO '***', $1"),
        ("x" * 500, "x" * 119 + "…"),
    ],
)
def test_statements_in_messages(sql: str, shown: str) -> None:
    assert shorten(sql) == shown


def test_errors() -> None:
    error = DatabaseError("no", sql="SELECT 'x'", code="42")
    assert str(error) == "no [42] (in: SELECT '***')"
    assert (error.message, error.sql, error.code) == ("no", "SELECT '***'", "42")
    assert str(DatabaseError("no")) == "no"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
