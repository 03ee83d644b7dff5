"""Errors that FlowCoro raises, and nothing else: no logging, no formatting helpers.

Every message says what is wrong, where, and what was expected, and never carries
a secret. Timeouts are the built-in `TimeoutError`; closed and broken streams are
anyio's `ClosedResourceError`, `BrokenResourceError` and `EndOfStream`.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ConfigError",
    "DependencyError",
    "DuplicateClaimError",
    "FlowcoroError",
    "PluginError",
    "StartupError",
    "TargetError",
]


class FlowcoroError(Exception):
    """Base of every error that FlowCoro itself raises."""


class ConfigError(FlowcoroError):
    """The configuration is wrong.

    Args:
        problems: one line per problem, each naming the source (file or variable),
            the key, the value (redacted where it is secret) and the expectation.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(FlowcoroError):
    """A plugin broke its contract; the message names plugin, distribution and hook."""


class DuplicateClaimError(PluginError):
    """Two plugins, or two components, claim one name; the message names both."""


class DependencyError(FlowcoroError):
    """An annotation asks for something that nothing provides, or that is ambiguous."""


class StartupError(FlowcoroError):
    """The application could not start; what had started was closed again."""


class TargetError(FlowcoroError):
    """A `module:attribute` target does not name an application."""
