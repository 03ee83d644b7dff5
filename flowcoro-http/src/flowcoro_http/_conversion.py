"""From a text to the value that a parameter's type asks for."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flowcoro_http._annotations import bare_type, is_list, item_type
from flowcoro_http._problem import FieldError

if TYPE_CHECKING:
    from flowcoro_http._parameters import PlannedParameter

__all__ = ["BadParameter", "converter", "missing", "read_text"]


class BadParameter(Exception):  # noqa: N818 - the binder collects these; none gets further
    """One parameter cannot be made.

    Args:
        error: where and why.
    """

    def __init__(self, error: FieldError) -> None:
        super().__init__(error)
        self.error = error


def missing(parameter: PlannedParameter) -> BadParameter:
    """Make the error for a parameter that is not there."""
    return BadParameter(FieldError(parameter.location, "missing", parameter.expected))


def converter(parameter: PlannedParameter) -> Callable[[Any], Any]:
    """Make the function that converts a text, or a list of texts; raises `BadParameter`."""
    if parameter.annotation is str:
        return _same
    read = read_text(parameter.annotation)

    def convert(value: Any) -> Any:
        try:
            return read(value)
        except (msgspec.ValidationError, ValueError, OverflowError):
            error = FieldError(parameter.location, "not valid", parameter.expected)
            raise BadParameter(error) from None

    return convert


def read_text(annotation: Any) -> Callable[[Any], Any]:
    """Make the function that reads a text, or a list of texts, as a type.

    It raises `msgspec.ValidationError`, `ValueError` or `OverflowError`.
    """
    bare = bare_type(annotation)
    several = is_list(bare)
    item = bare_type(item_type(bare)) if several else bare
    if item is int:
        return _integers(annotation) if several else _integer_of(annotation)
    if item in _ENDLESS:
        return _numbers(annotation) if several else _number(annotation)

    def convert(value: Any) -> Any:
        # Not strict: "true" is a bool when it comes as text.
        return msgspec.convert(value, annotation, strict=False)

    return convert


# What `{name:int}` of a path takes, no more and no less (native/.../converters.hpp).
_INTEGER = re.compile(r"-?[0-9]{1,4300}\Z")
_INTEGERS = re.compile(r"-?[0-9]{1,4300}(?:,-?[0-9]{1,4300})*\Z")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_ZEROS = re.compile(r"(-?)0+(?=[0-9])")
_ENDLESS = frozenset({float, decimal.Decimal})


def _integer(text: str) -> int:
    if _INTEGER.match(text) is None:
        raise ValueError(text)
    return int(text)


def _integer_of(annotation: Any) -> Callable[[Any], Any]:
    if annotation is int:
        return _integer
    # msgspec sees to limits.
    return lambda text: msgspec.convert(_integer(text), annotation)


def _integers(annotation: Any) -> Callable[[Any], Any]:
    def convert(texts: Any) -> Any:
        # One look at all of them; what has a comma itself is no integer for `int`.
        if _INTEGERS.match(",".join(texts)) is None:
            raise ValueError(texts)
        return msgspec.convert(list(map(int, texts)), annotation)

    return convert


def _number(annotation: Any) -> Callable[[Any], Any]:
    is_decimal = bare_type(annotation) is decimal.Decimal

    def convert(text: Any) -> Any:
        if is_decimal:
            _check_decimal(text)
        try:
            found = msgspec.convert(text, annotation, strict=False)
        except msgspec.ValidationError:
            found = msgspec.convert(_without_zeros(text), annotation, strict=False)
        # JSON has no numbers for others, nor has a float: `int` of it would take all memory.
        if not math.isfinite(found):
            raise ValueError(found)
        return found

    return convert


def _numbers(annotation: Any) -> Callable[[Any], Any]:
    is_decimal = bare_type(item_type(annotation)) is decimal.Decimal

    def convert(texts: Any) -> Any:
        if is_decimal:
            for text in texts:
                _check_decimal(text)
        try:
            found = msgspec.convert(texts, annotation, strict=False)
        except msgspec.ValidationError:
            found = msgspec.convert(list(map(_without_zeros, texts)), annotation, strict=False)
        if not all(map(math.isfinite, found)):
            raise ValueError(found)
        return found

    return convert


def _check_decimal(text: str) -> None:
    # Its class takes more than JSON has: `1_0`, `+1`, spaces, digits of other scripts.
    if _DECIMAL.match(text) is None:
        raise ValueError(text)


def _without_zeros(text: str) -> str:
    """Return a number as JSON writes it, where a path may have zeros before it."""
    found = _ZEROS.match(text)
    return text if found is None else found[1] + text[found.end() :]


def _same(value: Any) -> Any:
    return value
