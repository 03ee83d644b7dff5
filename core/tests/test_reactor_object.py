"""`flowcoro.reactor.Reactor`: running, waking, closing, threads and forks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from textwrap import dedent

import pytest

import flowcoro
from flowcoro.reactor import Reactor, available

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the backends so far are Linux's")

backends = pytest.mark.parametrize("name", available())


@backends
def test_it_runs_and_closes(name: str) -> None:
    with Reactor(name) as reactor:
        assert reactor.name == name
        assert reactor.run_once(0) == 0
        assert reactor.run_once(timeout=0.001) == 0
        assert reactor.in_flight == 0
    reactor.close()
    assert reactor.in_flight == 0
    reactor.wake()
    with pytest.raises(RuntimeError, match="the reactor is closed"):
        reactor.run_once(0)
    with pytest.raises(RuntimeError, match="the reactor is closed"):
        reactor.run()
    with pytest.raises(RuntimeError, match="the reactor is closed"), reactor:
        pass


def test_the_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Reactor().name == available()[0]
    monkeypatch.setenv("FLOWCORO_REACTOR", "epoll")
    assert Reactor().name == "epoll"
    assert Reactor(None).name == "epoll"
    monkeypatch.setenv("FLOWCORO_REACTOR", "no-such")
    with pytest.raises(ValueError, match="FLOWCORO_REACTOR: no backend 'no-such'"):
        Reactor()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="no backend 'no-such' on this platform; there are: io_ur"):
        Reactor("no-such")
    with pytest.raises(TypeError, match="name must be a string or None, not 'int'"):
        Reactor(3)  # type: ignore[arg-type]
    with Reactor() as reactor:
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None"):
            reactor.run_once("soon")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout must not be negative"):
            reactor.run_once(-1)
        with pytest.raises(ValueError, match="NaN"):
            reactor.run_once(float("nan"))


def test_the_kernel_refuses_with_its_reason() -> None:
    script = """
        import resource
        from flowcoro.reactor import Reactor
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            Reactor("epoll")
        except OSError as error:
            print(error.errno, error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "24 [Errno 24] epoll_create1: Too many open files\n", ran.stderr


@backends
def test_any_thread_wakes_it(name: str) -> None:
    with Reactor(name) as reactor:
        reactor.wake()
        assert reactor.run_once() == 0  # it was woken before
        waker = threading.Thread(target=reactor.wake)
        waker.start()
        assert reactor.run_once() == 0
        waker.join()


@backends
def test_run_lasts_until_stop(name: str) -> None:
    with Reactor(name) as reactor:
        reactor.stop()
        reactor.run()  # at once: it was stopped before
        other = threading.Thread(target=reactor.stop)
        other.start()
        reactor.run()
        other.join()


def test_the_gil_is_free_while_it_waits() -> None:
    seen = []
    with Reactor() as reactor:

        def other() -> None:
            seen.append(1)
            reactor.wake()

        thread = threading.Thread(target=other)
        thread.start()
        while not seen:
            reactor.run_once()
        thread.join()


@backends
def test_it_belongs_to_one_thread(name: str) -> None:
    errors: list[str] = []

    def refused(call: object) -> None:
        assert callable(call)
        try:
            call()
        except RuntimeError as error:
            errors.append(str(error))

    with Reactor(name) as reactor:
        reactor.run_once(0)
        for call in (
            lambda: reactor.run_once(0),
            reactor.run,
            reactor.close,
            lambda: reactor.in_flight,
        ):
            thread = threading.Thread(target=refused, args=(call,))
            thread.start()
            thread.join()
        reactor.run_once(0)
    assert errors == ["the reactor belongs to another thread: the one that ran it first"] * 4


@backends
def test_it_may_be_made_by_another_thread_than_its_own(name: str) -> None:
    reactor = Reactor(name)

    def drive() -> None:
        with reactor:
            reactor.run()

    thread = threading.Thread(target=drive)
    thread.start()
    reactor.stop()
    thread.join()
    with pytest.raises(RuntimeError, match="closed"):
        reactor.run_once(0)


def test_running_it_twice_is_refused() -> None:
    reactor = Reactor()
    started = threading.Event()

    def drive() -> None:
        with reactor:
            reactor.run_once(0)
            started.set()
            reactor.run()

    thread = threading.Thread(target=drive)
    thread.start()
    started.wait()
    # Either of them, depending on where the other thread is.
    for call in (lambda: reactor.run_once(0), reactor.close):
        with pytest.raises(RuntimeError, match=r"running already|belongs to another thread"):
            call()
    reactor.stop()
    thread.join()


def test_a_signal_handler_may_run_it_no_deeper() -> None:
    script = """
        import signal
        from flowcoro.reactor import Reactor
        reactor = Reactor()
        def handler(number, frame):
            for call in (reactor.close, lambda: reactor.run_once(0)):
                try:
                    call()
                except RuntimeError as error:
                    print(error)
            raise KeyError("from the handler")
        signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # on a busy machine it rings before the run
            reactor.run()
        except KeyError as error:
            print(error)
        signal.signal(signal.SIGALRM, lambda number, frame: reactor.stop())
        signal.setitimer(signal.ITIMER_REAL, 30)  # not while the interpreter ends
        reactor.run()
        reactor.close()
    """
    ran = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # Handlers run between the turns, where the reactor may be closed.
    assert ran.returncode == 1
    assert ran.stdout == "the reactor is closed\n'from the handler'\n", ran.stderr
    assert ran.stderr.endswith("RuntimeError: the reactor is closed\n")


def test_ctrl_c_ends_a_wait() -> None:
    with Reactor() as reactor:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            reactor.run()
        timer.join()


@backends
def test_what_is_dropped_gives_its_descriptors_back(name: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    reactor = Reactor(name)
    gone = weakref.ref(reactor)
    reactor.run_once(0)
    assert descriptors() > before
    del reactor
    gc.collect()
    assert gone() is None
    assert descriptors() == before
    # On another thread as well, when nothing is in flight.
    owned = [Reactor(name)]
    owned[0].run_once(0)
    thread = threading.Thread(target=owned.clear)
    thread.start()
    thread.join()
    assert descriptors() == before


@backends
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_leaves_it_alone(name: str) -> None:
    reactor = Reactor(name)
    reactor.run_once(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (lambda: reactor.run_once(0), reactor.run, lambda: reactor.in_flight):
                with pytest.raises(RuntimeError, match="make a new one after a fork"):
                    call()
            reactor.wake()
            reactor.close()
            del reactor
            with Reactor(name) as own:
                own.wake()
                own.run_once()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    deadline = time.monotonic() + 10
    reactor.wake()
    reactor.run_once()
    assert time.monotonic() < deadline
    reactor.close()


def test_headers_and_the_cmake_package_are_installed() -> None:
    include = Path(flowcoro.get_include())
    assert include.is_absolute()
    for header in ("native_api.h", "transport/protocol.h", "lockfree/queue.hpp"):
        assert (include / "flowcoro" / header).is_file()
    package = Path(flowcoro.get_cmake_dir())
    assert (package / "flowcoroConfig.cmake").is_file()
    assert 'PACKAGE_VERSION "0.1' in (package / "flowcoroConfigVersion.cmake").read_text("utf-8")


def test_missing_headers_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flowcoro import _headers

    monkeypatch.setattr(_headers, "_INSTALLED", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"native_api\.h is not there: install flowcoro"):
        flowcoro.get_include()
