"""Runs a module of CPython's own test.test_asyncio on flowcoro.Loop.

    python tests/conformance/run_asyncio_suite.py io_uring test_events

Wherever the suite makes a loop, through the policy or by a test case's `create_event_loop`, it
gets ours. Exits with 1 when a test fails that EXPLAINED does not name, or one that it names
passes, or none is run, and with MISSING when this Python does not have the module; what is left
out, and why, is in asyncio.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import unittest
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from flowcoro._loop import Loop

MODULES = (
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_locks",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
)
"""What is about loops in general; those that a Python does not have are left out there."""


class Explained(NamedTuple):
    """Why a test cannot pass, and where."""

    reason: str
    backends: tuple[str, ...] = ("io_uring", "epoll", "kqueue", "iocp")
    since: tuple[int, int] = (3, 11)  # of Python

    def here(self, backend: str) -> bool:
        """Whether it is this backend and this Python."""
        return backend in self.backends and sys.version_info >= self.since


EXPLAINED = {
    "SelectorEventLoopUnixSockSendfileTests.test_sock_sendfile_blocking_error": Explained(
        "looks into the selector of asyncio's own loop"
    ),
    # Until then wait_for gave the loop the turn that is missing, as it made a task of its own.
    "TestSSL.test_create_connection_memory_leak": Explained(
        "stops the loop one turn before the kernel has let go of the socket",
        backends=("io_uring",),
        since=(3, 12),
    ),
}
"""Tests that cannot pass, by class and name."""

MISSING = 77

# One loop class of ours stands for all of asyncio's, which differ by their selector.
_REPEATED = ("EPollEventLoopTests", "PollEventLoopTests", "KqueueEventLoopTests")


def adapt(module: ModuleType, backend: str) -> None:
    """Have the module's test cases make our loops."""
    for name, value in list(vars(module).items()):
        if name in _REPEATED:
            delattr(module, name)
        elif isinstance(value, type) and "create_event_loop" in vars(value):
            value.create_event_loop = lambda _self: Loop(backend)  # type: ignore[attr-defined]


def name_of(test: unittest.TestCase) -> str:
    """Returns `Class.test`, of a subtest that of its test."""
    test = getattr(test, "test_case", test)
    return ".".join(test.id().split(".")[-2:])


def cases_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yields the single tests of a suite."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from cases_of(each)
        else:
            yield each


def run(backend: str, name: str, only: str = "") -> int:
    """Returns the exit code."""

    class Policy(asyncio.DefaultEventLoopPolicy):  # type: ignore[name-defined,misc]
        def new_event_loop(self) -> Loop:
            return Loop(backend)

    try:
        module = importlib.import_module(f"test.test_asyncio.{name}")
    except ModuleNotFoundError as missing:
        if missing.name != f"test.test_asyncio.{name}":
            raise
        print(f"this Python has no {missing.name}")
        return MISSING
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.set_event_loop_policy(Policy())
    adapt(module, backend)
    suite = unittest.TestSuite(
        test
        for test in cases_of(unittest.defaultTestLoader.loadTestsFromModule(module))
        if only in test.id()
    )
    there = {name_of(test) for test in cases_of(suite)}
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(suite)
    for test, reason in result.skipped:
        print(f"skipped by the suite: {name_of(test)}: {reason}")
    failed = {name_of(test) for test, _ in [*result.failures, *result.errors]}
    failed |= {name_of(test) for test in result.unexpectedSuccesses}
    expected = there & {test for test, why in EXPLAINED.items() if why.here(backend)}
    for each in sorted(failed & expected):
        print(f"explained: {each}: {EXPLAINED[each].reason}")
    for each in sorted(failed - expected):
        print(f"NOT EXPLAINED: {each}")
    for each in sorted(expected - failed):
        print(f"PASSES, though explained: {each}")
    return 0 if there and failed == expected else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend")
    parser.add_argument("module")
    parser.add_argument("--only", default="", help="run tests whose id contains this")
    arguments = parser.parse_args()
    sys.exit(run(arguments.backend, arguments.module, arguments.only))
