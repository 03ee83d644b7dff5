"""Addresses that mean the same on every host, and the error of a system call."""

from __future__ import annotations

import os

__all__ = ["ANYWHERE", "LOOPBACK", "os_error"]

LOOPBACK = "127.0.0.1"
ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there really


def os_error(number: int, what: str = "") -> OSError:
    """Return the error that the system would raise: the subclass of `OSError` for the number."""
    text = os.strerror(number)
    return OSError(number, f"{text}: {what}" if what else text)
