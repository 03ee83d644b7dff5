"""Jobs of several threads and tasks that log to one file, as JSON lines.

    python jobs.py

Each line has the job's trace id, though no call passes it on.
"""

import asyncio
import json
import logging
import tempfile
import uuid
from contextvars import ContextVar
from pathlib import Path

import flowcoro.log

log = logging.getLogger("jobs")
trace: ContextVar[flowcoro.log.Trace | None] = ContextVar("trace", default=None)


def compute(number: int) -> float:
    log.debug("in a thread", extra={"job": number})
    return 1 / number


async def job(number: int) -> None:
    trace.set(flowcoro.log.Trace(uuid.uuid4().hex))
    log.info("job %d begins", number)
    try:
        result = await asyncio.to_thread(compute, number)
    except ZeroDivisionError:
        log.exception("job %d failed", number)
    else:
        log.info("job %d done", number, extra={"result": result})


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(job(number))


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "jobs.log"
    flowcoro.log.set_trace_provider(trace.get)
    flowcoro.log.setup(
        path, levels={"jobs": "DEBUG"}, format="json", rotate_size=10_000_000, keep=5
    )
    asyncio.run(main())
    flowcoro.log.shutdown()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

for line in lines:
    print(line["trace_id"][:8], line["level"], line["message"], line.get("result", ""))
