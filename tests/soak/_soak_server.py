"""The echo server of the soak: `python _soak_server.py REACTOR MODE`, with figures on demand.

Prints its port. Each line of its input makes it print a line of JSON: what it holds, when garbage
is gone. It leaves when its input ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from _echo_server import HOST, MODES
from flowcoro import new_event_loop


class _Mallinfo2(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def malloced() -> int:
    """Return how many bytes of malloc are in use; 0 where the C library does not tell."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo2.restype = _Mallinfo2
    told = mallinfo2()
    return int(told.uordblks + told.hblkhd)


def give_back() -> None:
    """Have malloc give back what it keeps free, so that what is resident is what is held.

    It keeps as much as was in use at any time, and more as its pieces lie: that grows as often as a
    new extreme comes, for hours, though nothing is lost.
    """
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def figures(errors: list[str]) -> dict[str, Any]:
    gc.collect()
    give_back()
    loop: Any = asyncio.get_running_loop()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "malloced": malloced(),
        "tasks": len(asyncio.all_tasks()),
        "timers": loop.stats().timers,
        "errors": errors,
    }


async def main(mode: str) -> None:
    loop = asyncio.get_running_loop()
    errors: list[str] = []

    def note(_: object, context: dict[str, Any]) -> None:
        # Of asyncio's streams, whatever the loop (uvloop's users see it as well): a reset that a
        # handler has caught, and the future of the connection's end, refer to each other. The
        # collector may come to the future first, which complains.
        if mode == "streams" and context["message"] == "Future exception was never retrieved":
            assert isinstance(context["exception"], ConnectionError)
            return
        errors.append(f"{context['message']}: {context.get('exception')!r}")

    loop.set_exception_handler(note)
    listener = socket.socket()
    listener.bind((HOST, 0))
    port = listener.getsockname()[1]
    server = await MODES[mode](listener, None)
    ended = loop.create_future()

    def command() -> None:
        if os.read(0, 100):
            print(json.dumps(figures(errors)), flush=True)
        else:
            loop.remove_reader(0)
            ended.set_result(None)

    loop.add_reader(0, command)
    await asyncio.sleep(0)  # a server that is a task listens
    print(port, flush=True)
    await ended
    del server


if __name__ == "__main__":
    reactor, chosen = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=lambda: new_event_loop(reactor)) as runner:
        runner.run(main(chosen))
