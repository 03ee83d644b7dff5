"""What lines look like, and that no text whatever breaks them."""

from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowcoro.log import AsyncHandler, JsonFormatter, TextFormatter, Trace, set_trace_provider
from log_tools import FAR, Lines, logger_for, text

ODD = '\ud800 \x00\n\r\t\x1b[2J\u2028\x85 \udfff😀"\\ {}%s'


@pytest.fixture
def sink() -> Lines:
    return Lines()


def handler_of(sink: Lines, formatter: logging.Formatter | None = None) -> AsyncHandler:
    return AsyncHandler(sink, formatter=formatter, flush_interval=FAR)


@pytest.fixture
def as_json(sink: Lines):
    handler = handler_of(sink, JsonFormatter())
    yield handler
    handler.close()


@pytest.fixture
def as_text(sink: Lines):
    handler = handler_of(sink)
    yield handler
    handler.close()


def test_a_text_line_has_time_level_logger_and_message(as_text, sink) -> None:
    before = datetime.now(UTC)
    logger_for(as_text, "orders").info("paid %d %s", 7, "euros")
    as_text.flush()
    after = datetime.now(UTC)
    found = re.fullmatch(r"(\S+\.\d{6}Z) INFO    orders: paid 7 euros", sink.lines[0])
    assert found
    assert before <= datetime.fromisoformat(found[1]) <= after


def test_a_json_line_has_the_same_by_name(as_json, sink) -> None:
    before = datetime.now(UTC)
    logger_for(as_json, "orders").warning("paid %(n)d", {"n": 7})
    as_json.flush()
    (line,) = sink.objects
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line == {"level": "WARNING", "logger": "orders", "message": "paid 7"}


def test_extra_fields(as_json, sink) -> None:
    fields: dict[str, Any] = {
        "id": 7, "ok": True, "no": None, "ratio": 0.5, "nan": float("nan"), "raw": b"\xff!",
        "deep": {"a": [1, {"b": "c"}]}, "level": "mine", "level_": "as well", "what": 1j,
        "loop": [],
    }  # fmt: skip
    fields["loop"].append(fields["loop"])
    logger_for(as_json).info("x", extra=fields)
    as_json.flush()
    (line,) = sink.objects
    assert {key: line[key] for key in line if key not in ("time", "logger", "message")} == {
        "level": "INFO", "id": 7, "ok": True, "no": None, "ratio": 0.5, "nan": "nan",
        "raw": "\\xff!", "deep": {"a": [1, {"b": "c"}]}, "level_": "as well", "level__": "mine",
        "what": "1j", "loop": "[[...]]",
    }  # fmt: skip


def test_extra_fields_as_text(as_text, sink) -> None:
    logger_for(as_text).info("x", extra={"id": 7, "who": "a b", "deep": {"a": [1]}, "n": "b"})
    assert text(as_text, sink) == ["""INFO    tests.log: x id=7 who='a b' deep={"a": [1]} n=b"""]


def test_an_exception_is_text_before_its_frames_change(as_json, sink) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        logger_for(as_json).exception("no luck")
        error.args = ("another",)
    as_json.flush()
    (line,) = sink.objects
    assert line["message"] == "no luck"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith('raise ValueError("broken")\nValueError: broken')


def test_lines_after_the_first_are_indented(as_text, sink) -> None:
    logger = logger_for(as_text)
    logger.info("first\n2026-01-01T00:00:00.000000Z INFO    admin: forged\x1b[2J\r")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.error("no luck", exc_info=True, stack_info=True)
    as_text.flush()
    forged, trace, *_ = [line for line in sink.lines if line[:1] != "2"]
    assert forged == "    2026-01-01T00:00:00.000000Z INFO    admin: forged\\x1b[2J\\r"
    assert trace == "    Traceback (most recent call last):"
    assert "    Stack (most recent call last):" in sink.lines
    assert sum(not line.startswith("    ") for line in sink.lines) == 2


def test_source_thread_and_task(sink) -> None:
    import asyncio

    handler = handler_of(sink, JsonFormatter(source=True, thread=True, task=True))
    fast = logger_for(handler)
    slow = logger_for(handler, kind=logging.Logger)

    async def main() -> None:
        fast.info("x")
        fast.info("x", extra={"a": 1})
        slow.info("x")
        logging.LoggerAdapter(fast, {}).info("x")
        fast.log(logging.INFO, "x")

    async def named() -> None:
        await asyncio.create_task(main(), name="one")

    asyncio.run(named())
    fast.info("outside")
    handler.close()
    lines = sink.objects
    assert len(lines) == 6
    first = main.__code__.co_firstlineno
    for line in lines[:5]:
        assert line["source"] == __file__
        assert line["function"] == "main"
        assert line["thread"] == "MainThread"
    assert [line["line"] - first for line in lines[:5]] == [1, 2, 3, 4, 5]
    assert lines[0]["task"] == "one"
    if sys.version_info >= (3, 12):
        assert [line["task"] for line in lines[1:5]] == ["one"] * 4
    assert lines[5]["function"] == "test_source_thread_and_task"
    assert "task" not in lines[5]


def test_source_as_text(sink) -> None:
    handler = handler_of(sink, TextFormatter(source=True, thread=True))
    logger_for(handler).info("x")
    handler.close()
    assert re.search(
        r"x source=\S+test_log_format.py:\d+ function=test_\w+ thread=Main", *sink.lines
    )


def test_trace_ids(as_json, as_text, sink) -> None:
    traces = [Trace("a" * 32, "b" * 16), None, Trace("c")]

    def provider() -> Trace | None:
        if not traces:
            raise LookupError
        return traces.pop(0)

    before = set_trace_provider(provider)
    try:
        for number in range(4):
            logger_for(as_json).info("x", extra={"n": number} if number == 2 else None)
        as_json.flush()
        both, none, one, raised = sink.objects
        traces.append(Trace("d e", "f"))
        logger_for(as_text).info("x")
    finally:
        assert set_trace_provider(before) is provider
    assert (both["trace_id"], both["span_id"]) == ("a" * 32, "b" * 16)
    assert "trace_id" not in none
    assert "trace_id" not in raised
    assert one["trace_id"] == "c"
    assert "span_id" not in one
    assert text(as_text, sink)[-1].endswith(": x trace_id='d e' span_id=f")


def test_levels_have_their_names(as_text, sink) -> None:
    logger = logger_for(as_text)
    logger.debug("d")
    logger.critical("c")
    logger.log(35, "between")
    assert [line.split(" tests")[0] for line in text(as_text, sink)] == [
        "DEBUG  ", "CRITICAL", "Level 35",
    ]  # fmt: skip


@given(st.floats())
@example(1e300)
@example(-1e11)
@example(1.9999999)
def test_any_time_is_a_time(created: float) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "x", (), None)
    record.created = created
    (line,) = JsonFormatter().lines([record])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", json.loads(line)["time"])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=3,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(st.characters(exclude_categories=())),
    st.text(st.characters(exclude_categories=()), min_size=1),
    st.dictionaries(st.text(st.characters(exclude_categories=())), values, max_size=4),
)
@example(ODD, ODD, {ODD: ODD})
@example("\ud83d\ude00", "n", {})
def test_json_lines_round_trip(message: str, name: str, fields: dict[str, Any]) -> None:
    sink = Lines()
    handler = handler_of(sink, JsonFormatter())
    known = logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys() | {"message", "asctime"}
    fields = {key: value for key, value in fields.items() if key not in known}
    logger = logger_for(handler, name)
    logger.info("%s", message)
    logger.info(message, extra=fields)
    handler.close()
    # JSON cannot tell two lone surrogates in a row from the character that they encode.
    expected = json.loads(json.dumps({"message": message, "logger": name, "fields": fields}))
    data = b"".join(sink.batches)
    assert data.count(b"\n") == 2
    plain, extended = map(json.loads, data.splitlines())
    for line in (plain, extended):
        assert line["message"] == expected["message"]
        assert line["logger"] == expected["logger"]
    own = {"time", "level", "logger", "message"}
    reserved = {"trace_id", "span_id", "source", "line", "function", "thread", "task",
                "exception", "stack", *own}  # fmt: skip
    if not reserved & fields.keys():
        assert {key: extended[key] for key in extended.keys() - own} == expected["fields"]


@given(st.text(st.characters(exclude_categories=())))
@example(ODD)
def test_a_text_line_is_one_record(message: str) -> None:
    (line,) = TextFormatter().lines([(0.0, logging.INFO, None, "x", message, None, None, None)])
    first, *others = line.encode("utf-8", "backslashreplace").decode().split("\n")
    assert first.startswith("1970-01-01T00:00:00.000000Z INFO    x: ")
    assert others.pop() == ""
    assert all(other.startswith("    ") for other in others)
    shown = "".join((first, *others)).replace("\t", "")
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Zl", "Zp")]


def test_our_formatters_serve_other_handlers() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s!", ("hello",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == "hello!"
    assert TextFormatter().format(record).endswith("INFO    x: hello!")
