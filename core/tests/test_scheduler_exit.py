"""Ends of whole processes: the interpreter's exit, forks, signals, a lack of threads."""

from __future__ import annotations

import pytest

from scheduler_cases import no_fork, on_linux, output_of, run_script

START = """
    import atexit, os, sys, threading, time
    from flowcoro.lockfree import Queue
    from flowcoro.scheduler import PriorityScheduler, WorkStealingScheduler, yield_now
    scheduler = WorkStealingScheduler(2)
    urgent = PriorityScheduler(2)
    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole lines
"""


def test_exit_with_idle_schedulers() -> None:
    assert output_of(START + "    say(scheduler.schedule(int).result(5))") == "0\n"
    assert output_of(START) == ""


def test_exit_right_after_start() -> None:
    assert output_of(START + "    many = [WorkStealingScheduler(32) for _ in range(8)]") == ""


def test_exit_waits_for_what_was_scheduled() -> None:
    source = """
    def work(n):
        time.sleep(0.001)
        say(n)
    for n in range(20):
        scheduler.schedule(work, n)
        urgent.schedule(work, n)
    """
    printed = output_of(START + source).split()
    assert sorted(map(int, printed)) == sorted(list(range(20)) * 2)


def test_exit_waits_for_what_runs_and_what_that_schedules() -> None:
    source = """
    begun = threading.Event()
    def work(n):
        begun.set()
        time.sleep(0.05)
        say(n)
        if n:
            scheduler.schedule(work, n - 1)
    scheduler.schedule(work, 3)
    begun.wait(5)
    """
    assert output_of(START + source).split() == ["3", "2", "1", "0"]


@pytest.mark.parametrize(
    "waiting",
    [
        "on.sleep(1000)",
        "Queue(1).aget()",
        "on.schedule(on.sleep, 1000)",
        "spin()",
    ],
)
def test_exit_cancels_coroutines_that_would_wait(waiting: str) -> None:
    source = f"""
    async def spin():
        while True:
            await yield_now()
    async def coroutine(name, on):
        try:
            begun.release()
            await {waiting}
        except BaseException as error:
            say(name, type(error).__name__)
            raise
        finally:
            say(name, "finally")
    begun = threading.Semaphore(0)
    handles = [scheduler.schedule(coroutine, "a", scheduler)]
    handles.append(urgent.schedule(coroutine("b", urgent)))
    for _ in handles:
        assert begun.acquire(timeout=5)
    """
    lines = output_of(START + source).splitlines()
    assert sorted(lines) == ["a CancelledError", "a finally", "b CancelledError", "b finally"]


def test_exit_begins_pending_coroutines_and_cancels_them_where_they_wait() -> None:
    source = """
    def hold():
        holding.release()
        time.sleep(0.1)
    async def coroutine(name):
        say(name, "began")
        try:
            await urgent.sleep(1000)
        finally:
            say(name, "finally")
    holding = threading.Semaphore(0)
    for on in scheduler, urgent:
        on.schedule(hold), on.schedule(hold)
    for _ in range(4):
        assert holding.acquire(timeout=5)
    scheduler.schedule(coroutine, "a"), urgent.schedule(coroutine("b"))
    """
    lines = output_of(START + source).splitlines()
    assert sorted(lines) == ["a began", "a finally", "b began", "b finally"]


def test_exit_while_a_daemon_thread_schedules() -> None:
    source = """
    def schedule():
        try:
            while True:
                scheduler.schedule(int)
                begun.set()
        except RuntimeError:
            pass
    begun = threading.Event()
    threading.Thread(target=schedule, daemon=True).start()
    begun.wait(5)
    """
    assert output_of(START + source) == ""


def test_exit_after_shutdown_without_waiting() -> None:
    source = """
    scheduler.schedule(time.sleep, 0.1)
    scheduler.schedule(say, "ran")
    scheduler.shutdown(wait=False)
    """
    assert output_of(START + source) == "ran\n"


def test_exit_just_after_a_worker_dropped_the_scheduler() -> None:
    source = """
    def drop():
        box.clear()
    for _ in range(20):
        box = [WorkStealingScheduler(4)]
        box[0].schedule(drop)
        while box:
            time.sleep(0)
    """
    for _ in range(3):
        assert output_of(START + source) == ""


def test_exit_by_system_exit_keeps_the_code() -> None:
    source = """
    scheduler.schedule(time.sleep, 0.05)
    sys.exit(7)
    """
    ended = run_script(START + source)
    assert (ended.returncode, ended.stderr) == (7, "")


def test_at_the_interpreters_end_no_scheduler_can_be_made() -> None:
    source = """
    import atexit
    @atexit.register
    def late():
        for make in WorkStealingScheduler, PriorityScheduler:
            try:
                make(2)
            except RuntimeError as error:
                print(error)
        try:
            scheduler.schedule(int)
        except RuntimeError as error:
            print(error)
    from flowcoro.scheduler import PriorityScheduler, WorkStealingScheduler
    scheduler = WorkStealingScheduler(1)
    """
    refused = "no scheduler can be made any more: the interpreter ends"
    lines = [refused, refused, "the scheduler was shut down"]
    assert output_of(source).splitlines() == lines


@pytest.mark.parametrize("wait", ["handle.result()", "scheduler.shutdown()"])
def test_interrupt_while_a_thread_waits(wait: str) -> None:
    source = f"""
    import signal
    def handler(*_):
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
    def interrupt():
        ready.wait(20)
        while not interrupted:  # one that comes just before the thread sleeps does not wake it
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        go.wait(20)
    interrupted = []
    signal.signal(signal.SIGINT, handler)
    go, ready = threading.Event(), threading.Event()
    handle = scheduler.schedule(interrupt)
    try:
        ready.set()
        {wait}
    except KeyboardInterrupt:
        say("interrupted", handle.done())
    go.set()
    say(handle.result(5))
    """
    assert output_of(START + source).splitlines() == ["interrupted False", "None"]


@on_linux
def test_too_few_threads() -> None:
    source = """
    import resource
    from flowcoro.scheduler import PriorityScheduler, WorkStealingScheduler
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 29), size + (1 << 29)))
    for make in WorkStealingScheduler, PriorityScheduler:
        try:
            make(1024)
        except RuntimeError as error:
            print("refused")
        with make(2) as scheduler:
            print(scheduler.schedule(int).result(5))
    """
    assert output_of(source).split() == ["refused", "0"] * 2


FORK = (
    START
    + """
    import asyncio, faulthandler, warnings
    faulthandler.cancel_dump_traceback_later()  # a child would wait for its thread at exit
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
    go = threading.Event()
    begun = threading.Event()
    def hold():
        begun.set()
        go.wait(20)
        return "held"
    def in_child(check):
        child = os.fork()
        if child == 0:
            try:
                check()
            finally:
                sys.stdout.flush()
                os._exit(1)
        say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    def error_of(call, *args):
        try:
            call(*args)
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    async def wait_for(handle):
        async with asyncio.timeout(10):
            return await handle
    done = scheduler.schedule(int, 7)
    done.result(5)
    handle = scheduler.schedule(hold)
    waiting = urgent.schedule(urgent.sleep, 1000)
    assert begun.wait(5)
    while "waiting" not in repr(waiting):
        time.sleep(0)
"""
)
LOST = "RuntimeError: the task did not survive the fork: its worker is not here"
NEW = "RuntimeError: the scheduler's workers did not survive the fork: make a new one in the child"


@no_fork
def test_fork() -> None:
    source = """
    def check():
        say(done.result(), asyncio.run(wait_for(done)))
        for lost in handle, waiting:
            say(error_of(lost.result))
            say(error_of(lost.exception, 0))
            say(error_of(asyncio.run, wait_for(lost)))
        say(error_of(scheduler.schedule, int))
        say(error_of(lambda: urgent.sleep(1).send(None)))
        waiting.cancel()
        scheduler.shutdown(timeout=1)
        with WorkStealingScheduler(2) as own:
            say(own.schedule(int, 5).result(5), asyncio.run(wait_for(own.schedule(int, 6))))
            say(own.schedule(own.sleep, 0.01).result(5))
        left = WorkStealingScheduler(2)
        left.schedule(left.sleep, 1000)
        sys.exit(0)
    child = os.fork()
    if child == 0:
        check()
    say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    go.set()
    say(handle.result(5), waiting.cancel(), waiting.done() or scheduler.schedule(int).result(5))
    """
    lines = output_of(FORK + source).splitlines()
    assert lines[:7] == ["7 7"] + [LOST] * 6
    assert lines[7:9] == [NEW, NEW]
    assert lines[9:12] == ["5 6", "None", "child 0"]
    assert lines[12].startswith("held True ")


@no_fork
def test_fork_and_drop_everything_in_the_child() -> None:
    source = """
    def check():
        global scheduler, urgent, handle, waiting, done
        waiting.cancel()
        del scheduler, urgent, handle, waiting, done
        import gc
        gc.collect()
        os._exit(0)
    dropped = WorkStealingScheduler(1)
    pending = [dropped.schedule(hold), dropped.schedule(int)]
    del dropped
    in_child(lambda: (pending[1].cancel(), check()))
    go.set()
    say(pending[1].result(5))
    """
    assert output_of(FORK + source).splitlines() == ["child 0", "0"]


@no_fork
def test_fork_in_a_task() -> None:
    source = """
    def task():
        in_child(lambda: (say(error_of(handle.result)), os._exit(0)))
        return "went on"
    say(scheduler.schedule(task).result(20))
    go.set()
    """
    assert output_of(FORK + source).splitlines() == [LOST, "child 0", "went on"]


@no_fork
def test_multiprocessing_by_fork() -> None:
    source = """
    import multiprocessing
    context = multiprocessing.get_context("fork")
    def target(queue):
        with WorkStealingScheduler(2) as own:
            queue.put(own.schedule(int, 5).result(5))
        queue.put(error_of(scheduler.schedule, int))
    queue = context.Queue()
    process = context.Process(target=target, args=(queue,))
    process.start()
    say(queue.get(timeout=10), queue.get(timeout=10))
    process.join(10)
    say(process.exitcode)
    go.set()
    say(handle.result(5))
    """
    assert output_of(FORK + source).splitlines() == [f"5 {NEW}", "0", "held"]


def test_exit_of_a_program_that_imports_nothing_else() -> None:
    # Until 3.12 a worker that imports `threading` first would be taken for the main thread.
    source = """
    import time
    from flowcoro.scheduler import WorkStealingScheduler
    scheduler = WorkStealingScheduler(1)
    handle = scheduler.schedule(scheduler.sleep, 600)
    while "waiting" not in repr(handle):
        time.sleep(0)
    """
    assert output_of(source) == ""
