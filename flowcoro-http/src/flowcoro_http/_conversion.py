"""From a text to the value that a parameter's type asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

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

    def convert(value: Any) -> Any:
        try:
            # Not strict: "7" is an int and "true" a bool when they come as text.
            return msgspec.convert(value, annotation, strict=False)
        except (msgspec.ValidationError, ValueError, OverflowError):
            error = FieldError(parameter.location, "not valid", parameter.expected)
            raise BadParameter(error) from None

    return convert


def _same(value: Any) -> Any:
    return value
