from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from flowcoro import reactor

linux = pytest.mark.skipif(sys.platform != "linux", reason="the backends so far are Linux's")


@linux
def test_epoll_is_always_there() -> None:
    assert "epoll" in reactor.available()
    assert reactor.why_not("epoll") is None


@linux
def test_what_is_available_is_of_the_platform() -> None:
    assert reactor.backends() == ["io_uring", "epoll"]
    assert set(reactor.available()) <= set(reactor.backends())


def test_what_is_not_available_has_a_reason() -> None:
    assert reactor.why_not("no-such-backend") == "it is not a backend of this platform"
    for name in ("io_uring", "epoll"):
        assert (reactor.why_not(name) is None) == (name in reactor.available())


@linux
def test_a_forbidden_io_uring_is_reported() -> None:
    # By seccomp, as a container would: is it system call 425, io_uring_setup? Then EPERM.
    script = """
        import ctypes, struct
        libc = ctypes.CDLL(None, use_errno=True)
        code = b"".join(struct.pack("HBBI", *word) for word in [
            (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000),
        ])
        filters = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", 4, ctypes.addressof(filters))
        assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
        assert libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, "seccomp"
        from flowcoro import reactor
        print(reactor.available(), reactor.why_not("io_uring"))
    """
    ended = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr == ""
    assert ended.stdout == (
        "['epoll'] io_uring_setup (see kernel.io_uring_disabled, and the container's seccomp "
        "profile): Operation not permitted\n"
    )
