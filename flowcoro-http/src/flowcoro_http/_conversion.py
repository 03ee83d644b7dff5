"""From a text to the value that a parameter's type asks for."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from typing import Any

import msgspec

from flowcoro_http._annotations import bare_type, is_list, item_type
from flowcoro_http._parameters import PlannedParameter
from flowcoro_http._problem import FieldError

__all__ = ["BadParameter", "converter", "missing"]


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
    annotation = parameter.annotation
    if annotation is str:
        return _same

    bare = bare_type(annotation)
    may_be_endless = bare_type(item_type(bare) if is_list(bare) else bare) in _ENDLESS

    def convert(value: Any) -> Any:
        try:
            # Not strict: "7" is an int and "true" a bool when they come as text.
            found = msgspec.convert(value, annotation, strict=False)
            if may_be_endless:
                _check_finite(found)
        except (msgspec.ValidationError, ValueError, OverflowError):
            error = FieldError(parameter.location, "not valid", parameter.expected)
            raise BadParameter(error) from None
        return found

    return convert


_ENDLESS = frozenset({float, decimal.Decimal})


def _check_finite(found: Any) -> None:
    """Refuse what JSON has no numbers for, and no float: `int` of it would take all memory."""
    numbers = [found] if isinstance(found, float | decimal.Decimal) else found
    if not all(map(math.isfinite, numbers)):
        raise ValueError(found)


def _same(value: Any) -> Any:
    return value
