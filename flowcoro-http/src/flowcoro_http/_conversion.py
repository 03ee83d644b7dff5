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

    def convert(value: Any) -> Any:
        # Not strict: "7" is a float and "true" a bool when they come as text.
        return msgspec.convert(value, annotation, strict=False)

    if item is int:
        return _over(several, _integer, annotation)
    if item not in _ENDLESS:
        return convert

    def convert_finite(value: Any) -> Any:
        try:
            found = convert(value)
        except msgspec.ValidationError:
            # As in a path, a number may begin with zeros.
            found = convert(list(map(_without_zeros, value)) if several else _without_zeros(value))
        _check_finite(found)
        return found

    return convert_finite


# What `{name:int}` of a path takes, no more and no less (native/.../converters.hpp).
_INTEGER = re.compile(r"-?[0-9]{1,4300}\Z")
_ZEROS = re.compile(r"(-?)0+(?=[0-9])")
_ENDLESS = frozenset({float, decimal.Decimal})


def _over(several: bool, read: Callable[[str], Any], annotation: Any) -> Callable[[Any], Any]:
    """Read each text by itself, then have msgspec check the limits and make the list."""

    def convert(value: Any) -> Any:
        return msgspec.convert(list(map(read, value)) if several else read(value), annotation)

    if annotation is int:
        return read
    return convert


def _integer(text: str) -> int:
    if _INTEGER.match(text) is None:
        raise ValueError(text)
    return int(text)


def _without_zeros(text: str) -> str:
    found = _ZEROS.match(text)
    return text if found is None else found[1] + text[found.end() :]


def _check_finite(found: Any) -> None:
    """Refuse what JSON has no numbers for, and no float: `int` of it would take all memory."""
    numbers = [found] if isinstance(found, float | decimal.Decimal) else found
    if not all(map(math.isfinite, numbers)):
        raise ValueError(found)


def _same(value: Any) -> Any:
    return value
